//! Against servers written here by hand from the Modbus specification, on loopback. No sleeps: each test waits for an
//! answer, a state or a connection, for 10 s at most.

use super::*;
use crate::profile::{HttpMethod, Space, WriteFunction};
use crate::runtime::{Exit, Shutdown, ShutdownSwitch};
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(10);

fn pace(timeout_ms: u64) -> Pace {
    Pace { min_gap: Duration::ZERO, timeout: Duration::from_millis(timeout_ms), connect_delay: Duration::ZERO }
}

struct Rig {
    link: LinkHandle,
    switch: ShutdownSwitch,
    task: JoinSet<Exit>,
}

fn start(url: &str, timeout_ms: u64) -> Rig {
    let (link, task) = create(url, pace(timeout_ms), Clock::system()).unwrap();
    let (switch, shutdown): (_, Shutdown) = ShutdownSwitch::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(task.run(shutdown));
    Rig { link, switch, task: tasks }
}

impl Rig {
    async fn ask(&self, request: Request) -> Result<Answer, LinkError> {
        timeout(LONG, self.link.request(request)).await.expect("every request is answered")
    }

    async fn until(&self, mut is: impl FnMut(&LinkState) -> bool) -> LinkState {
        timeout(LONG, self.link.state().wait_for(|s| is(s))).await.expect("the state comes").unwrap().clone()
    }

    async fn up(&self) -> u64 {
        match self.until(|s| matches!(s, LinkState::Up { .. })).await {
            LinkState::Up { epoch } => epoch,
            _ => 0,
        }
    }

    async fn down(&self) -> String {
        match self.until(|s| matches!(s, LinkState::Down(_))).await {
            LinkState::Down(why) => why,
            _ => String::new(),
        }
    }

    async fn stop(mut self) {
        self.switch.stop();
        assert_eq!(timeout(LONG, self.task.join_next()).await.unwrap().unwrap().unwrap(), Exit::Shutdown);
        assert_eq!(self.link.request(read(1, 0, 1)).await, Err(LinkError::Shutdown));
    }
}

fn read(unit: u8, address: u16, count: u16) -> Request {
    Request::Read { unit, space: Space::Holding, address, count }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(LONG, listener.accept()).await.expect("the link dials").unwrap().0
}

/// One Modbus TCP request: transaction id, unit, PDU.
async fn take(stream: &mut TcpStream) -> Option<(u16, u8, Vec<u8>)> {
    let mut head = [0; 7];
    timeout(LONG, stream.read_exact(&mut head)).await.expect("a request comes").ok()?;
    assert_eq!(&head[2..4], &[0, 0], "protocol id");
    let mut pdu = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]])) - 1];
    stream.read_exact(&mut pdu).await.ok()?;
    Some((u16::from_be_bytes([head[0], head[1]]), head[6], pdu))
}

async fn give(stream: &mut TcpStream, tid: u16, unit: u8, pdu: &[u8]) {
    let mut frame = tid.to_be_bytes().to_vec();
    frame.extend([0, 0]);
    frame.extend(u16::try_from(pdu.len() + 1).unwrap().to_be_bytes());
    frame.push(unit);
    frame.extend(pdu);
    stream.write_all(&frame).await.unwrap();
}

/// Answers reads of holding registers with address, address + 1, ...; until the peer closes.
async fn serve(stream: &mut TcpStream) {
    while let Some((tid, unit, pdu)) = take(stream).await {
        match pdu[0] {
            3 => {
                let from = u16::from_be_bytes([pdu[1], pdu[2]]);
                let count = u16::from_be_bytes([pdu[3], pdu[4]]);
                let mut answer = vec![3, u8::try_from(count * 2).unwrap()];
                answer.extend((from..from + count).flat_map(u16::to_be_bytes));
                give(stream, tid, unit, &answer).await;
            }
            6 => give(stream, tid, unit, &pdu).await,
            16 => give(stream, tid, unit, &pdu[..5]).await,
            f => give(stream, tid, unit, &[f | 0x80, 1]).await,
        }
    }
}

/// Run a server beside the test's own steps.
async fn beside<T>(server: impl Future<Output = ()>, steps: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        result = steps => result,
        () = async { server.await; std::future::pending::<()>().await } => unreachable!(),
    }
}

#[tokio::test]
async fn reads_writes_and_refusals_over_one_connection() {
    let (listener, at) = listen().await;
    let rig = start(&format!("tcp://{at}"), 2000);
    let server = async {
        let mut stream = accept(&listener).await;
        serve(&mut stream).await;
    };
    beside(server, async {
        assert_eq!(rig.up().await, 1);
        assert_eq!(rig.ask(read(1, 40000, 3)).await, Ok(Answer::Words(vec![40000, 40001, 40002])));
        let write = |words: Vec<u16>, function| Request::Write { unit: 2, address: 7, words, function };
        assert_eq!(rig.ask(write(vec![9], WriteFunction::Single)).await, Ok(Answer::Written));
        assert_eq!(rig.ask(write(vec![9, 8], WriteFunction::Multiple)).await, Ok(Answer::Written));
        let refused = rig.ask(Request::Read { unit: 1, space: Space::Input, address: 0, count: 1 }).await;
        assert_eq!(refused, Err(LinkError::Refused(Refusal::Exception(1))));
        assert_eq!(rig.up().await, 1, "a refusal leaves the connection alone");
        assert!(matches!(rig.ask(read(1, 0, 126)).await, Err(LinkError::Refused(Refusal::Malformed(_)))));
        assert!(matches!(rig.ask(write(vec![1, 2], WriteFunction::Single)).await, Err(LinkError::Refused(_))));
        let (a, b) = tokio::join!(rig.ask(read(1, 1, 1)), rig.ask(read(2, 2, 1)));
        assert_eq!((a, b), (Ok(Answer::Words(vec![1])), Ok(Answer::Words(vec![2]))));
        let stats = rig.link.stats();
        assert_eq!((stats.requests, stats.connects, stats.timeouts, stats.errors), (8, 1, 0, 0));
        rig.stop().await;
    })
    .await;
}

#[tokio::test]
async fn nothing_listens_then_something_does() {
    let (listener, at) = listen().await;
    drop(listener);
    let rig = start(&format!("tcp://{at}"), 1000);
    let why = rig.down().await;
    assert!(why.contains("nothing listens at 127.0.0.1:") && why.contains("is Modbus enabled?"), "{why}");
    assert_eq!(rig.ask(read(1, 0, 1)).await, Err(LinkError::Down(why)), "a request does not wait for better times");
    let listener = TcpListener::bind(&at).await.unwrap();
    beside(async { serve(&mut accept(&listener).await).await }, async {
        rig.up().await;
        assert_eq!(rig.ask(read(1, 5, 1)).await, Ok(Answer::Words(vec![5])));
        rig.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_unknown_name_is_told_as_such() {
    let rig = start("tcp://no-such-host.invalid", 1000);
    let why = rig.down().await;
    assert!(why.contains("the name no-such-host.invalid"), "{why}");
    rig.stop().await;
}

#[tokio::test]
async fn a_half_open_peer_is_redialled_after_three_silences() {
    let (listener, at) = listen().await;
    let rig = start(&format!("tcp://{at}"), 50);
    let server = async {
        let mut deaf = accept(&listener).await;
        for _ in 0..3 {
            take(&mut deaf).await.unwrap();
        }
        serve(&mut accept(&listener).await).await;
    };
    beside(server, async {
        rig.up().await;
        for _ in 0..3 {
            let Err(LinkError::Timeout(why)) = rig.ask(read(1, 0, 1)).await else { panic!("a silent unit answers") };
            assert!(why.contains("port open, unit 1 silent"), "{why}");
        }
        rig.until(|s| *s == LinkState::Up { epoch: 2 }).await;
        assert_eq!(rig.ask(read(1, 3, 1)).await, Ok(Answer::Words(vec![3])));
        assert_eq!((rig.link.stats().timeouts, rig.link.stats().connects), (3, 2));
        rig.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_late_answer_is_never_the_next_requests() {
    let (listener, at) = listen().await;
    let rig = start(&format!("tcp://{at}"), 50);
    let server = async {
        let mut stream = accept(&listener).await;
        let (late, unit, _) = take(&mut stream).await.unwrap();
        // The second request is here, so the first has timed out: now its answer comes, before the second's.
        let (tid, ..) = take(&mut stream).await.unwrap();
        give(&mut stream, late, unit, &[3, 2, 0, 111]).await;
        give(&mut stream, tid, unit, &[3, 2, 0, 222]).await;
        serve(&mut accept(&listener).await).await;
    };
    beside(server, async {
        rig.up().await;
        assert!(matches!(rig.ask(read(1, 0, 1)).await, Err(LinkError::Timeout(_))));
        let Err(LinkError::Down(why)) = rig.ask(read(1, 0, 1)).await else { panic!("the late answer was taken") };
        assert!(why.contains("another request"), "{why}");
        rig.until(|s| *s == LinkState::Up { epoch: 2 }).await;
        assert_eq!(rig.ask(read(1, 3, 1)).await, Ok(Answer::Words(vec![3])));
        rig.stop().await;
    })
    .await;
}

#[tokio::test]
async fn garbage_wrong_ids_wrong_lengths_and_a_close_in_the_middle() {
    let (listener, at) = listen().await;
    let rig = start(&format!("tcp://{at}"), 2000);
    let server = async {
        let mut stream = accept(&listener).await;
        take(&mut stream).await.unwrap();
        stream.write_all(&[0, 0, 9, 9, 0, 3, 1, 3, 2, 0, 1]).await.unwrap();
        let mut stream = accept(&listener).await;
        let (tid, unit, _) = take(&mut stream).await.unwrap();
        give(&mut stream, tid.wrapping_add(1), unit, &[3, 2, 0, 1]).await;
        let mut stream = accept(&listener).await;
        take(&mut stream).await.unwrap();
        stream.write_all(&[0, 0, 0, 0]).await.unwrap();
        drop(stream);
        let mut stream = accept(&listener).await;
        let (tid, unit, _) = take(&mut stream).await.unwrap();
        give(&mut stream, tid, unit, &[3, 4, 0, 1, 0, 2]).await;
        let (tid, unit, _) = take(&mut stream).await.unwrap();
        give(&mut stream, tid, unit, &[0x83, 2]).await;
        drop(stream);
        serve(&mut accept(&listener).await).await;
    };
    beside(server, async {
        for epoch in 1..=3 {
            rig.until(|s| *s == LinkState::Up { epoch }).await;
            let answer = rig.ask(read(1, 0, 1)).await;
            assert!(matches!(&answer, Err(LinkError::Down(_))), "{epoch}: {answer:?}");
        }
        rig.until(|s| *s == LinkState::Up { epoch: 4 }).await;
        let answer = rig.ask(read(1, 0, 1)).await;
        assert!(matches!(&answer, Err(LinkError::Refused(Refusal::Malformed(_)))), "two registers for one: {answer:?}");
        assert_eq!(rig.ask(read(1, 0, 1)).await, Err(LinkError::Refused(Refusal::Exception(2))));
        // The peer closes while nothing is asked: noticed without a request.
        rig.until(|s| *s == LinkState::Up { epoch: 5 }).await;
        assert_eq!(rig.ask(read(1, 3, 1)).await, Ok(Answer::Words(vec![3])));
        rig.stop().await;
    })
    .await;
}

#[tokio::test]
async fn requests_given_up_are_not_sent_and_gaps_are_kept() {
    let (listener, at) = listen().await;
    let gap = Duration::from_millis(80);
    let (link, task) = create(&format!("tcp://{at}"), Pace { min_gap: gap, ..pace(2000) }, Clock::system()).unwrap();
    let (switch, shutdown) = ShutdownSwitch::new();
    let clock = Clock::system();
    let server = async {
        let mut stream = accept(&listener).await;
        let mut last = None;
        for expected in [1, 3] {
            let (tid, unit, pdu) = take(&mut stream).await.unwrap();
            assert_eq!(pdu[2], expected, "the request that was given up is left out");
            if let Some(last) = last {
                assert!(clock.mono().since(last) >= gap - Duration::from_millis(2));
            }
            give(&mut stream, tid, unit, &[3, 2, 0, 7]).await;
            last = Some(clock.mono());
        }
    };
    let steps = async {
        link.state().wait_for(|s| matches!(s, LinkState::Up { .. })).await.unwrap();
        let mut given_up = Box::pin(link.request(read(1, 2, 1)));
        let first = link.request(read(1, 1, 1));
        let mut first = Box::pin(first);
        // Both are queued, the first in front; then the second is dropped before its turn.
        std::future::poll_fn(|cx| {
            assert!(first.as_mut().poll(cx).is_pending());
            assert!(given_up.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        drop(given_up);
        assert_eq!(first.await, Ok(Answer::Words(vec![7])));
        assert_eq!(link.request(read(1, 3, 1)).await, Ok(Answer::Words(vec![7])));
        switch.stop();
    };
    let ((), (), exit) = timeout(LONG, async { tokio::join!(server, steps, task.run(shutdown)) }).await.unwrap();
    assert_eq!(exit, Exit::Shutdown);
}

/// CRC-16 of Modbus over Serial Line, 6.2.2, bit by bit.
fn crc(frame: &[u8]) -> [u8; 2] {
    let mut crc = 0xFFFF_u16;
    for byte in frame {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xA001 } else { crc >> 1 };
        }
    }
    crc.to_le_bytes()
}

fn rtu(frame: &[u8]) -> Vec<u8> {
    let mut out = frame.to_vec();
    out.extend(crc(frame));
    out
}

#[tokio::test]
async fn rtu_over_tcp_survives_noise_and_throws_late_answers_away() {
    let (listener, at) = listen().await;
    let rig = start(&format!("rtu+tcp://{at}"), 100);
    let take_rtu = async |stream: &mut TcpStream| {
        let mut frame = [0; 8];
        timeout(LONG, stream.read_exact(&mut frame)).await.unwrap().unwrap();
        assert_eq!(crc(&frame[..6]), frame[6..8]);
        frame
    };
    let server = async {
        let mut stream = accept(&listener).await;
        take_rtu(&mut stream).await;
        stream.write_all(&rtu(&[1, 3, 2, 0, 42])).await.unwrap();
        // A wrong checksum.
        take_rtu(&mut stream).await;
        stream.write_all(&[1, 3, 2, 0, 42, 0, 0]).await.unwrap();
        take_rtu(&mut stream).await;
        stream.write_all(&rtu(&[1, 3, 2, 0, 43])).await.unwrap();
        // Another unit's answer.
        take_rtu(&mut stream).await;
        stream.write_all(&rtu(&[9, 3, 2, 0, 42])).await.unwrap();
        take_rtu(&mut stream).await;
        stream.write_all(&rtu(&[1, 0x83, 2])).await.unwrap();
        take_rtu(&mut stream).await;
        stream.write_all(&rtu(&[1, 3, 2, 0, 44])).await.unwrap();
        let mut rest = [0; 8];
        assert_eq!(stream.read(&mut rest).await.unwrap_or(0), 0);
    };
    beside(server, async {
        rig.up().await;
        assert_eq!(rig.ask(read(1, 0, 1)).await, Ok(Answer::Words(vec![42])));
        let noise = rig.ask(read(1, 0, 1)).await;
        assert!(matches!(&noise, Err(LinkError::Timeout(_) | LinkError::Refused(Refusal::Malformed(_)))), "{noise:?}");
        assert_eq!(rig.ask(read(1, 0, 1)).await, Ok(Answer::Words(vec![43])));
        let other = rig.ask(read(1, 0, 1)).await;
        assert!(matches!(&other, Err(LinkError::Refused(Refusal::Malformed(_)))), "{other:?}");
        assert_eq!(rig.ask(read(1, 0, 1)).await, Err(LinkError::Refused(Refusal::Exception(2))));
        assert_eq!(rig.ask(read(1, 0, 1)).await, Ok(Answer::Words(vec![44])));
        assert_eq!(rig.up().await, 1, "noise is no reason to reconnect");
        rig.stop().await;
    })
    .await;
}

#[tokio::test]
async fn rtu_on_a_serial_line() {
    use tokio_serial::{SerialPort, SerialStream};
    let (mut device, line) = SerialStream::pair().unwrap();
    let path = line.name().unwrap();
    drop(line);
    let rig = start(&format!("rtu://{path}?baud=19200&parity=none"), 2000);
    let mut state = rig.link.state();
    let server = async {
        state.wait_for(|s| matches!(s, LinkState::Up { .. })).await.unwrap();
        loop {
            let mut frame = [0; 8];
            timeout(LONG, device.read_exact(&mut frame)).await.unwrap().unwrap();
            assert_eq!(crc(&frame[..6]), frame[6..8]);
            device.write_all(&rtu(&[frame[0], 3, 2, frame[2], frame[3]])).await.unwrap();
        }
    };
    beside(server, async {
        let state = rig.until(|s| *s != LinkState::Connecting).await;
        assert_eq!(state, LinkState::Up { epoch: 1 });
        for address in [1, 258, 40000] {
            assert_eq!(rig.ask(read(7, address, 1)).await, Ok(Answer::Words(vec![address])));
        }
        rig.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_write_overtakes_and_a_dead_unit_is_given_less_time() {
    let (listener, at) = listen().await;
    let rig = start(&format!("tcp://{at}"), 1000);
    let order = std::sync::Mutex::new(Vec::new());
    let server = async {
        let mut stream = accept(&listener).await;
        while let Some((tid, unit, pdu)) = take(&mut stream).await {
            order.lock().unwrap().push(pdu[0]);
            match pdu[0] {
                _ if unit == 9 => {}
                3 => give(&mut stream, tid, unit, &[3, 2, 0, 1]).await,
                _ => give(&mut stream, tid, unit, &pdu).await,
            }
        }
    };
    beside(server, async {
        rig.up().await;
        let write = Request::Write { unit: 1, address: 7, words: vec![1], function: WriteFunction::Single };
        // Asked in this order; the first is on its way when the others come.
        let (a, b, c) = tokio::join!(rig.ask(read(1, 0, 1)), rig.ask(read(1, 0, 1)), rig.ask(write));
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        let sent = order.lock().unwrap().clone();
        assert!(sent == [3, 6, 3] || sent == [6, 3, 3], "{sent:?}");
        let clock = Clock::system();
        for _ in 0..3 {
            assert!(matches!(rig.ask(read(9, 0, 1)).await, Err(LinkError::Timeout(_))));
            assert_eq!(rig.ask(read(1, 0, 1)).await, Ok(Answer::Words(vec![1])), "the others go on");
        }
        let before = clock.mono();
        assert!(matches!(rig.ask(read(9, 0, 1)).await, Err(LinkError::Timeout(_))));
        let took = clock.mono().since(before);
        assert!(took < Duration::from_millis(800), "{took:?}");
        assert_eq!(rig.up().await, 1);
        rig.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_missing_serial_port_is_told_and_tried_again() {
    let rig = start("rtu:///dev/derd-no-such-port?baud=9600", 100);
    let why = rig.down().await;
    assert!(why.contains("/dev/derd-no-such-port is not there"), "{why}");
    rig.stop().await;
}

/// One HTTP request: its head.
async fn take_http(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        timeout(LONG, stream.read_exact(&mut byte)).await.expect("a request comes").unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

fn get(path: &str) -> Request {
    Request::Http { method: HttpMethod::Get, path: path.into(), body: None, writes: false }
}

#[tokio::test]
async fn http_answers_refusals_and_trouble() {
    let (listener, at) = listen().await;
    let rig = start(&format!("http://{at}"), 1000);
    let server = async {
        let mut stream = accept(&listener).await;
        for (expected, status, body) in [
            ("GET /api/status?filter=amp HTTP/1.1", "200 OK", "{\"amp\":16}".to_owned()),
            ("GET /no HTTP/1.1", "404 Not Found", "nothing\r\nhere".to_owned()),
            ("GET /page HTTP/1.1", "200 OK", "<html>".to_owned()),
            ("GET /away HTTP/1.1", "302 Found\r\nlocation: http://192.0.2.1/", String::new()),
        ] {
            let head = take_http(&mut stream).await;
            assert!(head.starts_with(expected), "{head}");
            let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(text.as_bytes()).await.unwrap();
        }
        // Larger than any local API answers.
        take_http(&mut stream).await;
        let large = "HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n".to_owned() + &"1".repeat(300_000);
        if stream.write_all(large.as_bytes()).await.is_ok() {
            drop(stream);
        }
        // Silent.
        let mut stream = accept(&listener).await;
        take_http(&mut stream).await;
        let mut next = accept(&listener).await;
        take_http(&mut next).await;
        next.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue").await.unwrap();
        drop(listener);
        drop(next);
    };
    beside(server, async {
        assert_eq!(rig.up().await, 1);
        assert_eq!(rig.ask(get("/api/status?filter=amp")).await, Ok(Answer::Json(serde_json::json!({"amp": 16}))));
        assert_eq!(rig.ask(get("/no")).await, Err(LinkError::Refused(Refusal::Http(404, "nothinghere".into()))));
        assert!(matches!(rig.ask(get("/page")).await, Err(LinkError::Refused(Refusal::Malformed(_)))));
        assert!(matches!(rig.ask(get("/away")).await, Err(LinkError::Refused(Refusal::Http(302, _)))));
        let large = rig.ask(get("/large")).await;
        assert!(matches!(&large, Err(LinkError::Refused(Refusal::Malformed(_)))), "{large:?}");
        assert_eq!(rig.up().await, 1);
        let silent = rig.ask(get("/slow")).await;
        assert!(matches!(&silent, Err(LinkError::Timeout(_))), "{silent:?}");
        rig.down().await;
        assert_eq!(rig.ask(get("/ok")).await, Ok(Answer::Json(serde_json::json!(true))));
        assert_eq!(rig.up().await, 2);
        let gone = rig.ask(get("/gone")).await;
        assert!(matches!(&gone, Err(LinkError::Down(_))), "{gone:?}");
        assert!(matches!(rig.ask(read(1, 0, 1)).await, Err(LinkError::Refused(_))));
        rig.stop().await;
    })
    .await;
}

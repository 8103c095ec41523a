//! How a connection is opened, and the stream that throws away what comes too late.

use super::address::{Address, Parity};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_serial::{ClearBuffer, SerialPort, SerialPortBuilderExt, SerialStream};

/// A device on the LAN answers a SYN within milliseconds; three retransmissions fit in this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Unacknowledged data for so long means that the peer is gone: a half-open socket is noticed although the kernel's own
/// patience is a quarter of an hour.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// An idle connection is asked after so long, three times.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Anything that Modbus frames can go over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Stream for T {}

/// Open what `address` names.
///
/// Errors are sentences for people that tell "nothing listens" from "not there".
pub(super) async fn open(address: &Address) -> Result<Box<dyn Stream>, String> {
    match address {
        Address::Tcp { host, port } | Address::RtuOverTcp { host, port } => {
            Ok(Box::new(dial(host, *port, matches!(address, Address::Tcp { .. })).await?))
        }
        Address::Serial { path, baud, parity, stop } => Ok(Box::new(open_serial(path, *baud, *parity, *stop)?)),
        Address::Http { .. } => Err("an HTTP link is opened by its requests".into()),
    }
}

async fn dial(host: &str, port: u16, modbus: bool) -> Result<tokio::net::TcpStream, String> {
    let addresses: Vec<SocketAddr> = if let Ok(ip) = host.parse::<IpAddr>() {
        vec![SocketAddr::new(ip, port)]
    } else {
        match timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((host, port))).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => return Err(format!("the name {host} is not known: {error}")),
            Err(_) => return Err(format!("no answer about the name {host}")),
        }
    };
    let mut why = format!("the name {host} has no address");
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => why = explain(&error, host, port, modbus),
            Err(_) => why = format!("{host}:{port} does not answer: device off, or another address"),
        }
    }
    Err(why)
}

async fn connect(address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    let options = SockRef::from(&stream);
    options.set_tcp_nodelay(true)?;
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(3))?;
    options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(stream)
}

/// A connect error in words.
pub(super) fn explain(error: &io::Error, host: &str, port: u16, modbus: bool) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            let hint = if modbus { " (is Modbus enabled?)" } else { "" };
            format!("connection refused: nothing listens at {host}:{port}{hint}")
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("no route to {host}: device off, or another network ({error})")
        }
        io::ErrorKind::TimedOut => format!("{host}:{port} does not answer: device off, or another address"),
        _ => format!("connecting to {host}:{port}: {error}"),
    }
}

fn open_serial(path: &str, baud: u32, parity: Parity, stop: u8) -> Result<SerialStream, String> {
    let port = tokio_serial::new(path, baud)
        .parity(match parity {
            Parity::None => tokio_serial::Parity::None,
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
        })
        .stop_bits(if stop == 2 { tokio_serial::StopBits::Two } else { tokio_serial::StopBits::One })
        .open_native_async()
        .map_err(|error| match error.kind() {
            _ if !std::path::Path::new(path).exists() => format!("{path} is not there: adapter unplugged?"),
            tokio_serial::ErrorKind::NoDevice => format!("{path}: {error} (does another program hold it?)"),
            tokio_serial::ErrorKind::Io(io::ErrorKind::PermissionDenied) => {
                format!("{path}: permission denied (is the user in group dialout?)")
            }
            _ => format!("opening {path}: {error}"),
        })?;
    port.clear(ClearBuffer::All).map_err(|error| format!("opening {path}: {error}"))?;
    Ok(port)
}

/// A stream with two owners: the Modbus client, and the link, which empties it between requests so that an answer that
/// comes late is never taken for that of the next request, and sees at once when the peer closes.
#[derive(Debug)]
pub(super) struct Tap(Arc<Mutex<Box<dyn Stream>>>);

impl Clone for Tap {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Tap {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    fn lock(&self) -> MutexGuard<'_, Box<dyn Stream>> {
        // Polling a stream does not panic half-way; and if it did, the next poll would say so.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// One read into nowhere: how many bytes.
    fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [0_u8; 256];
        let mut buf = ReadBuf::new(&mut scratch);
        match Pin::new(&mut **self.lock()).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the other side")))
            }
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buf.filled().len())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Throw away everything that comes; returns only when the stream is broken or closed.
    pub(super) async fn watch(&self) -> io::Error {
        std::future::poll_fn(|cx| {
            loop {
                match self.poll_discard(cx) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(error),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Throw away what has come already.
    pub(super) async fn empty(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            loop {
                match self.poll_discard(cx) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Ready(Ok(())),
                }
            }
        })
        .await
    }

    /// Throw away what comes until nothing came for `quiet`, for `limit` at most.
    pub(super) async fn settle(&self, quiet: Duration, limit: Duration) -> io::Result<()> {
        let silence = async {
            loop {
                match timeout(quiet, std::future::poll_fn(|cx| self.poll_discard(cx))).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Ok(()),
                }
            }
        };
        timeout(limit, silence).await.unwrap_or(Ok(()))
    }
}

impl AsyncRead for Tap {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.lock()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tap {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self.lock()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.lock()).poll_shutdown(cx)
    }
}

//! One open Modbus connection, and one request over it.

use super::LinkError;
use super::address::Address;
use super::socket::{Stream, Tap};
use crate::profile::{Answer, Refusal, Request, Space, WriteFunction};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;
use tokio_modbus::client::{Client, Context, rtu, tcp};
use tokio_modbus::slave::{Slave, SlaveContext};
use tokio_modbus::{Error as ModbusError, ProtocolError, Request as Wire, Response};

/// So many requests in a row without a usable answer, and the connection is made anew: it may be half-open.
const PATIENCE: u32 = 3;
/// No unit is given less.
const SHORTEST_WAIT: Duration = Duration::from_millis(300);
/// How long a line is left to finish what it is saying after a disturbed request.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);

/// What one request did to the connection.
pub(super) struct Turn {
    /// The asker's answer.
    pub(super) answer: Result<Answer, LinkError>,
    /// Why the connection must be made anew, if so.
    pub(super) broken: Option<String>,
}

pub(super) struct Session {
    context: Context,
    tap: Tap,
    address: Address,
    wait: Duration,
    unanswered: u32,
    /// Silences in a row of each unit that did not answer last.
    silences: BTreeMap<u8, u32>,
    /// Did any device ever answer over this connection.
    pub(super) proven: bool,
}

impl Session {
    pub(super) fn new(address: &Address, stream: Box<dyn Stream>, wait: Duration) -> Self {
        let tap = Tap::new(stream);
        Self {
            context: attach(address, &tap),
            tap,
            address: address.clone(),
            wait,
            unanswered: 0,
            silences: BTreeMap::new(),
            proven: false,
        }
    }

    /// Keep the line empty while nothing is asked; returns why when the connection ends.
    pub(super) async fn watch(&mut self) -> String {
        let error = self.tap.watch().await;
        self.lost(&error.to_string())
    }

    pub(super) async fn ask(&mut self, request: &Request) -> Turn {
        let (unit, wire) = match to_wire(request) {
            Ok(wire) => wire,
            Err(refusal) => return Turn { answer: Err(refusal.into()), broken: None },
        };
        if let Err(error) = self.tap.empty().await {
            return self.broken(&error.to_string());
        }
        self.context.set_slave(Slave(unit));
        // `call` and not the typed functions: those panic in debug builds when a device answers with another length.
        let wait = self.wait_for(unit);
        let called = timeout(wait, self.context.call(wire)).await;
        match called {
            Ok(Ok(Ok(response))) => {
                self.answered(unit);
                Turn { answer: to_answer(request, response).map_err(LinkError::from), broken: None }
            }
            Ok(Ok(Err(exception))) => {
                self.answered(unit);
                Turn { answer: Err(Refusal::Exception(exception.into()).into()), broken: None }
            }
            Ok(Err(error)) if self.is_line() => self.disturbed(&error).await,
            Ok(Err(error)) => self.broken(&tell(&error)),
            Err(_) => self.silent(unit, wait).await,
        }
    }

    /// A unit that is dead must not slow the others on its bus: it is given a quarter of the time, and every fourth time
    /// all of it, so that a slow one that lives is found again.
    fn wait_for(&self, unit: u8) -> Duration {
        match self.silences.get(&unit) {
            Some(n) if *n >= PATIENCE && n % 4 != 0 => (self.wait / 4).max(SHORTEST_WAIT).min(self.wait),
            _ => self.wait,
        }
    }

    fn answered(&mut self, unit: u8) {
        self.unanswered = 0;
        self.silences.remove(&unit);
        self.proven = true;
    }

    const fn is_line(&self) -> bool {
        matches!(self.address, Address::Serial { .. } | Address::RtuOverTcp { .. })
    }

    fn lost(&self, why: &str) -> String {
        let address = &self.address;
        if self.proven {
            format!("connection to {address} lost: {why}")
        } else {
            format!("connection to {address} made and lost without any answer: {why} (does another client hold it?)")
        }
    }

    fn broken(&self, why: &str) -> Turn {
        let why = self.lost(why);
        Turn { answer: Err(LinkError::Down(why.clone())), broken: Some(why) }
    }

    /// No answer in time. A late one must never count for the next request: over TCP its transaction id gives it away,
    /// on a line only silence does.
    async fn silent(&mut self, unit: u8, wait: Duration) -> Turn {
        self.unanswered += 1;
        *self.silences.entry(unit).or_default() += 1;
        let why = format!("{}: port open, unit {unit} silent for {} ms", self.address, wait.as_millis());
        let settled = if self.is_line() { self.settle().await } else { Ok(()) };
        let answer = Err(LinkError::Timeout(why.clone()));
        match settled {
            Err(lost) => Turn { answer, broken: Some(lost) },
            Ok(()) if self.unanswered >= PATIENCE => Turn { answer, broken: Some(why) },
            Ok(()) => Turn { answer, broken: None },
        }
    }

    /// Noise, or an answer of somebody else: on a shared line that happens, and the port is not to blame.
    async fn disturbed(&mut self, error: &ModbusError) -> Turn {
        if let ModbusError::Transport(io) = error
            && io.kind() != std::io::ErrorKind::InvalidData
        {
            return self.broken(&io.to_string());
        }
        self.unanswered += 1;
        let why = tell(error);
        if let Err(lost) = self.settle().await {
            return Turn { answer: Err(LinkError::Down(lost.clone())), broken: Some(lost) };
        }
        // After an error the client's decoder would report an end of stream: begin with a new one.
        self.context = attach(&self.address, &self.tap);
        let answer = Err(Refusal::Malformed(format!("disturbed line: {why}")).into());
        let broken = (self.unanswered >= PATIENCE).then(|| self.lost(&why));
        Turn { answer, broken }
    }

    async fn settle(&mut self) -> Result<(), String> {
        let quiet = (self.wait / 2).clamp(Duration::from_millis(100), Duration::from_secs(1));
        let settled = self.tap.settle(quiet, SETTLE_LIMIT).await;
        settled.map_err(|e| self.lost(&e.to_string()))
    }
}

fn attach(address: &Address, tap: &Tap) -> Context {
    match address {
        Address::Tcp { .. } | Address::Http { .. } => tcp::attach(tap.clone()),
        Address::Serial { .. } | Address::RtuOverTcp { .. } => rtu::attach(tap.clone()),
    }
}

fn tell(error: &ModbusError) -> String {
    match error {
        ModbusError::Protocol(ProtocolError::HeaderMismatch { message, .. }) => {
            format!("an answer to another request ({message})")
        }
        ModbusError::Protocol(ProtocolError::FunctionCodeMismatch { request, .. }) => {
            format!("an answer with another function than {request}")
        }
        // The client reports an end of stream as the last error of the system, which is then success.
        ModbusError::Transport(error) if error.raw_os_error() == Some(0) => "closed by the other side".into(),
        ModbusError::Transport(error) => error.to_string(),
    }
}

fn to_wire(request: &Request) -> Result<(u8, Wire<'_>), Refusal> {
    match request {
        Request::Read { unit, space, address, count } => {
            if !(1..=125).contains(count) {
                return Err(Refusal::Malformed(format!("derd asked for {count} registers at once")));
            }
            let wire = match space {
                Space::Holding => Wire::ReadHoldingRegisters(*address, *count),
                Space::Input => Wire::ReadInputRegisters(*address, *count),
            };
            Ok((*unit, wire))
        }
        Request::Write { unit, address, words, function } => match (function, words.as_slice()) {
            (WriteFunction::Single, [word]) => Ok((*unit, Wire::WriteSingleRegister(*address, *word))),
            (WriteFunction::Multiple, words) if (1..=123).contains(&words.len()) => {
                Ok((*unit, Wire::WriteMultipleRegisters(*address, Cow::Borrowed(words))))
            }
            (_, words) => {
                Err(Refusal::Malformed(format!("derd wanted to write {} registers in one request", words.len())))
            }
        },
        Request::Http { .. } => Err(Refusal::Malformed("an HTTP request on a Modbus link".into())),
    }
}

fn to_answer(request: &Request, response: Response) -> Result<Answer, Refusal> {
    let other = |what: String| Err(Refusal::Malformed(format!("{request}: {what}")));
    match (request, response) {
        (Request::Read { count, .. }, Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words)) => {
            if words.len() == usize::from(*count) {
                Ok(Answer::Words(words))
            } else {
                other(format!("{} registers instead of {count}", words.len()))
            }
        }
        (Request::Write { address, words, .. }, Response::WriteSingleRegister(at, word)) => {
            if at == *address && words.first() == Some(&word) {
                Ok(Answer::Written)
            } else {
                other(format!("the device says that it wrote {word} to {at}"))
            }
        }
        (Request::Write { address, words, .. }, Response::WriteMultipleRegisters(at, count)) => {
            if at == *address && usize::from(count) == words.len() {
                Ok(Answer::Written)
            } else {
                other(format!("the device says that it wrote {count} registers from {at}"))
            }
        }
        _ => other("an answer to another kind of request".into()),
    }
}

//! The devices' sockets: Modbus TCP and HTTP on loopback, each of which can vanish and come back on its port.

use super::registers::Refusal;
use super::state::Shared;
use crate::runtime::{Shutdown, ShutdownSwitch};
use axum::extract::RawQuery;
use axum::routing::get;
use axum::serve::Listener;
use axum::{Json, Router};
use socket2::{Domain, Socket, Type};
use std::future::{Future, IntoFuture, Ready, ready};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_modbus::prelude::{ExceptionCode, Request, Response, SlaveRequest};
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};

/// A loopback socket that owns a port (0: any free one) but does not listen: connecting to it is refused.
fn own_port(port: u16) -> io::Result<(Socket, u16)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    let port = socket.local_addr()?.as_socket().map_or(port, |address| address.port());
    Ok((socket, port))
}

/// What a port speaks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Protocol {
    Modbus { unit_id: u8 },
    Http,
}

/// A device's port and, while it is online, its server.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) port: u16,
    protocol: Protocol,
    unit: usize,
    /// Keeps the port while nobody listens.
    parked: Option<Socket>,
    switch: Option<ShutdownSwitch>,
    tasks: JoinSet<()>,
}

impl Port {
    pub(super) fn new(port: u16, protocol: Protocol, unit: usize) -> io::Result<Self> {
        let (socket, port) = own_port(port)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot take port {port} for a simulated device: {e}")))?;
        Ok(Self { port, protocol, unit, parked: Some(socket), switch: None, tasks: JoinSet::new() })
    }

    /// Listen before the runtime runs, so that a connection made at once already waits for its server.
    pub(super) fn listen(&self) -> io::Result<()> {
        self.parked.as_ref().map_or(Ok(()), |socket| socket.listen(128))
    }

    /// Serve; within the simulator's runtime.
    pub(super) fn online(&mut self, state: &Shared) -> io::Result<()> {
        if self.switch.is_some() {
            return Ok(());
        }
        let socket = match self.parked.take() {
            Some(socket) => socket,
            None => own_port(self.port)?.0,
        };
        socket.listen(128)?;
        let listener = TcpListener::from_std(socket.into())?;
        let (switch, gone) = ShutdownSwitch::new();
        self.switch = Some(switch);
        match self.protocol {
            Protocol::Modbus { unit_id } => {
                let device = Registers { state: state.clone(), unit: self.unit, unit_id };
                self.tasks.spawn(modbus(listener, device));
            }
            Protocol::Http => {
                self.tasks.spawn(http(Gated { listener, gone }, state.clone(), self.unit));
            }
        }
        Ok(())
    }

    /// Close the listener and all connections, and keep the port.
    pub(super) async fn offline(&mut self) -> io::Result<()> {
        self.switch = None;
        self.tasks.shutdown().await;
        // the connections' tasks learn of it when they are next run
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        if self.parked.is_none() {
            self.parked = Some(own_port(self.port)?.0);
        }
        Ok(())
    }
}

async fn modbus(listener: TcpListener, device: Registers) {
    // for the listener's own troubles, such as too many open files
    const PAUSE: Duration = Duration::from_millis(100);
    let server = Server::new(listener);
    let connected = |stream: TcpStream, address| {
        let device = device.clone();
        ready(match stream.set_nodelay(true) {
            Ok(()) => accept_tcp_connection(stream, address, |_| Ok(Some(device.clone()))),
            // it is gone already: an error would end the listening
            Err(_) => Ok(None),
        })
    };
    let lost = |error: io::Error| tracing::debug!(%error, "a connection to a simulated device ended");
    while let Err(error) = server.serve(&connected, lost).await {
        tracing::warn!(%error, "a simulated device could not take a connection");
        tokio::time::sleep(PAUSE).await;
    }
}

/// One device behind Modbus.
#[derive(Debug, Clone)]
struct Registers {
    state: Shared,
    unit: usize,
    unit_id: u8,
}

impl From<Refusal> for ExceptionCode {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Address => Self::IllegalDataAddress,
            Refusal::Value => Self::IllegalDataValue,
        }
    }
}

impl Registers {
    fn answer(&self, SlaveRequest { slave, request }: SlaveRequest<'_>) -> Result<Response, ExceptionCode> {
        if slave != self.unit_id {
            return Err(ExceptionCode::GatewayTargetDevice);
        }
        let mut state = self.state.lock();
        Ok(match request {
            Request::ReadHoldingRegisters(address, count) => {
                Response::ReadHoldingRegisters(state.read(self.unit, address, count)?)
            }
            Request::WriteSingleRegister(address, word) => {
                state.write(self.unit, address, &[word])?;
                Response::WriteSingleRegister(address, word)
            }
            Request::WriteMultipleRegisters(address, words) => {
                state.write(self.unit, address, &words)?;
                Response::WriteMultipleRegisters(address, words.len() as u16)
            }
            _ => return Err(ExceptionCode::IllegalFunction),
        })
    }
}

impl tokio_modbus::server::Service for Registers {
    type Request = SlaveRequest<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        ready(self.answer(request))
    }
}

async fn http(listener: Gated, state: Shared, unit: usize) {
    let asked = state.clone();
    let status = move |RawQuery(query): RawQuery| {
        ready(Json(super::charger::status(&asked.lock().world, query.as_deref().unwrap_or_default())))
    };
    let set =
        move |RawQuery(query): RawQuery| ready(Json(state.lock().set(unit, query.as_deref().unwrap_or_default())));
    let router = Router::new().route("/api/status", get(status)).route("/api/set", get(set));
    if let Err(error) = axum::serve(listener, router).into_future().await {
        tracing::warn!(%error, "a simulated device stopped serving");
    }
}

/// A listener whose connections break when the device vanishes: axum's own would live on.
struct Gated {
    listener: TcpListener,
    gone: Shutdown,
}

impl Listener for Gated {
    type Io = GatedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (GatedStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let mut gone = self.gone.clone();
        (GatedStream { stream, gone: Box::pin(async move { gone.wait().await }), is_gone: false }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct GatedStream {
    stream: TcpStream,
    gone: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_gone: bool,
}

impl AsyncRead for GatedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_gone || self.gone.as_mut().poll(cx).is_ready() {
            self.is_gone = true;
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for GatedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! The two doors: how they are bound, how many may come in, and who is shown out.

use super::error::WebError;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Connections at once per door: a household's browsers use a handful each. More wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// A connection on which nothing moves for so long is closed; live streams write every 15 s.
const IDLE: Duration = Duration::from_secs(60);
/// A peer that acknowledges nothing for so long is gone (a phone that left the house).
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// After a failed accept (no file descriptors left): time for some to come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// An address that is taken (or whose interface is not up yet) is tried again after this time.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// Who is on the other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Over the Unix socket: whoever the file mode lets in.
    Local,
    /// Over TCP.
    Tcp { local: SocketAddr, remote: SocketAddr },
}

/// Listen there: the listener, and the address that was really bound.
pub(super) fn bind_tcp(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, bound))
}

/// Bind the Unix socket with mode 0660. A socket file that nobody answers on is replaced.
pub(super) fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile), WebError> {
    let fault = |reason: String| WebError::Socket { path: path.to_owned(), reason };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(fault(e.to_string())),
        Ok(meta) if !meta.file_type().is_socket() => return Err(fault("a file that is no socket is there".to_owned())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(fault("another derd answers there".to_owned()));
        }
        Ok(_) => {}
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|p| !p.is_dir()) {
        return Err(fault(format!("its folder {} does not exist", folder.display())));
    }
    // Made under another name and moved, so that it is never there with another mode.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let bind = || {
        match std::fs::remove_file(&fresh) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660))?;
        std::fs::rename(&fresh, path)?;
        Ok(listener)
    };
    let listener = bind().map_err(|e| fault(e.to_string()))?;
    Ok((listener, SocketFile(path.to_owned())))
}

/// The socket's file, removed when the server ends.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already, or the folder is not ours any more: the next start copes with either.
        let _left = std::fs::remove_file(&self.0).is_err();
    }
}

/// One door.
#[derive(Debug)]
pub(super) struct Door {
    socket: Socket,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    /// An address that could not be listened on yet: it is tried again until it can.
    Waiting(SocketAddr),
    Unix(UnixListener),
}

impl Door {
    pub(super) fn tcp(listener: TcpListener) -> Self {
        Self { socket: Socket::Tcp(listener), room: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    pub(super) fn waiting(address: SocketAddr) -> Self {
        Self { socket: Socket::Waiting(address), room: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    pub(super) fn unix(listener: UnixListener) -> Self {
        Self { socket: Socket::Unix(listener), room: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    async fn try_accept(&self) -> std::io::Result<(Pipe, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                let local = stream.local_addr()?;
                stream.set_nodelay(true)?;
                socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
                Ok((Pipe::Tcp(stream), Peer::Tcp { local, remote }))
            }
            Socket::Waiting(address) => Err(std::io::Error::new(std::io::ErrorKind::NotConnected, address.to_string())),
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Pipe::Unix(stream), Peer::Local))
            }
        }
    }
}

impl Listener for Door {
    type Io = Visit;
    type Addr = Peer;

    async fn accept(&mut self) -> (Visit, Peer) {
        while let Socket::Waiting(address) = self.socket {
            match bind_tcp(address) {
                Ok((listener, _)) => {
                    tracing::info!(%address, "the page is there");
                    self.socket = Socket::Tcp(listener);
                }
                Err(_) => tokio::time::sleep(BIND_AGAIN).await,
            }
        }
        let seat = loop {
            match Arc::clone(&self.room).acquire_owned().await {
                Ok(seat) => break seat,
                // The semaphore is never closed.
                Err(_) => std::future::pending::<()>().await,
            }
        };
        loop {
            match self.try_accept().await {
                Ok((pipe, peer)) => {
                    return (Visit { pipe, idle: Box::pin(tokio::time::sleep(IDLE)), _seat: seat }, peer);
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Peer> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(|local| Peer::Tcp { local, remote: local }),
            Socket::Waiting(address) => Ok(Peer::Tcp { local: *address, remote: *address }),
            Socket::Unix(_) => Ok(Peer::Local),
        }
    }
}

impl Connected<IncomingStream<'_, Door>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        *stream.remote_addr()
    }
}

/// One connection; it ends when nothing moves on it for [`IDLE`].
#[derive(Debug)]
pub(super) struct Visit {
    pipe: Pipe,
    idle: Pin<Box<Sleep>>,
    _seat: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Pipe {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Visit {
    fn judge<T>(&mut self, result: Poll<std::io::Result<T>>, cx: &mut Context<'_>) -> Poll<std::io::Result<T>> {
        if result.is_ready() {
            self.idle.set(tokio::time::sleep(IDLE));
            return result;
        }
        match self.idle.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(std::io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Visit {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let result = match &mut self.pipe {
            Pipe::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Pipe::Unix(s) => Pin::new(s).poll_read(cx, buf),
        };
        self.judge(result, cx)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let result = match &mut self.pipe {
            Pipe::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Pipe::Unix(s) => Pin::new(s).poll_write(cx, buf),
        };
        self.judge(result, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.pipe {
            Pipe::Tcp(s) => Pin::new(s).poll_flush(cx),
            Pipe::Unix(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.pipe {
            Pipe::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Pipe::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

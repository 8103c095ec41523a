//! The local page and the local API.
//!
//! Two doors: a TCP address and a Unix socket. The socket is guarded by its file mode and asks nothing; the address
//! checks every request's `Host` (so that no web page elsewhere can reach a gateway through a name of its own), asks
//! every change for JSON and an `Origin` of ours, and off loopback asks for the login.
//!
//! # Layout
//!
//! [`create`] binds, [`WebTask::run`] serves. `guard` decides who may pass, `auth` knows the password, `routes` is the
//! one list of paths, `api`, `history` and `stream` answer machines, `page`, `flow` and `chart` people.

mod api;
mod auth;
mod cards;
mod chart;
mod error;
mod flow;
mod format;
mod guard;
mod history;
mod listen;
mod page;
mod routes;
mod stream;
mod task;
#[cfg(test)]
mod tests;

pub use auth::{PasswordError, ensure_password, renew_password};
pub use error::WebError;
pub use task::WebTask;

use crate::command::CommandHandle;
use crate::device::Accept;
use crate::model::{DeviceId, DeviceSpec, SiteSpec};
use crate::observe::Board;
use crate::runtime::Clock;
use crate::store::StoreHandle;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSettings {
    /// The address of page and API. Port 0 takes a free one. Off loopback a login is asked for.
    pub listen: SocketAddr,
    /// Where the login's password is kept, mode 0600; made when it is first needed.
    pub password_file: PathBuf,
    /// The Unix socket of the command line, mode 0660; needs no password. Its folder must exist.
    pub socket: PathBuf,
    /// Is an address that cannot be listened on a reason not to start. A daemon goes on without its page and tries again:
    /// the house matters more.
    pub must_listen: bool,
}

impl Default for WebSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            password_file: PathBuf::from("/var/lib/derd/web.password"),
            socket: PathBuf::from("/run/derd/derd.sock"),
            must_listen: false,
        }
    }
}

/// What page and API are made of.
#[derive(Debug)]
pub struct WebParts {
    /// Where to listen.
    pub settings: WebSettings,
    /// Status, health, metrics.
    pub board: Board,
    /// History and events.
    pub store: StoreHandle,
    /// Where commands and plans go.
    pub commands: CommandHandle,
    /// The clock.
    pub clock: Clock,
    /// The devices in the order of the configuration.
    pub devices: Vec<DeviceSpec>,
    /// Where an installer's acceptance of a new baseline goes.
    pub accepts: BTreeMap<DeviceId, mpsc::Sender<Accept>>,
    /// The site.
    pub site: SiteSpec,
}

/// What the rest may know of the running server.
#[derive(Debug, Clone)]
pub struct WebHandle {
    address: SocketAddr,
}

impl WebHandle {
    /// The address that was really bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Bind both doors. Must be called within a tokio runtime. Off loopback the password is made if there is none.
///
/// # Errors
/// [`WebError`]: what could not be bound or made, and why.
pub fn create(parts: WebParts) -> Result<(WebHandle, WebTask), WebError> {
    let wanted = parts.settings.listen;
    let (tcp, address) = match listen::bind_tcp(wanted) {
        Ok((listener, address)) => (listen::Door::tcp(listener), address),
        Err(reason) if parts.settings.must_listen => return Err(WebError::Listen { address: wanted, reason }),
        Err(reason) => {
            tracing::error!(address = %wanted, %reason, "no page: something else listens there? It is tried again for ever");
            (listen::Door::waiting(wanted), wanted)
        }
    };
    let login = if address.ip().is_loopback() {
        None
    } else {
        ensure_password(&parts.settings.password_file)?;
        Some(auth::Login::new(parts.settings.password_file.clone()))
    };
    let (unix, socket) = listen::bind_unix(&parts.settings.socket)?;
    let app = routes::App::new(parts, login);
    Ok((WebHandle { address }, WebTask { app, tcp, unix, socket }))
}

//! Serving both doors until the end.

use super::listen::{Door, Peer, SocketFile};
use super::routes::{App, router};
use crate::runtime::{Exit, Shutdown};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::time::MissedTickBehavior;

/// A live status goes out at most this often.
const STREAM_EVERY: Duration = Duration::from_secs(1);
/// Answers that are under way at the end have this long.
const FAREWELL: Duration = Duration::from_secs(2);

/// The server: run it once.
#[derive(Debug)]
pub struct WebTask {
    pub(super) app: App,
    pub(super) tcp: Door,
    pub(super) unix: UnixListener,
    pub(super) socket: SocketFile,
}

impl WebTask {
    /// Serve until shutdown; live streams end at once then, other answers have 2 s.
    pub async fn run(self, shutdown: Shutdown) -> Exit {
        let Self { app, tcp, unix, socket } = self;
        let service = router(app.clone()).into_make_service_with_connect_info::<Peer>();
        let wait = |mut shutdown: Shutdown| async move { shutdown.wait().await };
        let doors = async {
            tokio::join!(
                axum::serve(tcp, service.clone()).with_graceful_shutdown(wait(shutdown.clone())),
                axum::serve(Door::unix(unix), service).with_graceful_shutdown(wait(shutdown.clone())),
            )
        };
        let ticker = async {
            let mut tick = tokio::time::interval(STREAM_EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                app.refresh_stream();
            }
        };
        let end = async {
            wait(shutdown.clone()).await;
            app.end_streams();
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            (tcp, unix) = doors => {
                // axum's serve never fails of itself: it answers with the end of the shutdown.
                if let Err(e) = tcp.and(unix) {
                    return Exit::Fatal(format!("serving page and API: {e}"));
                }
            }
            () = end => {}
            () = ticker => {}
        }
        drop(socket);
        Exit::Shutdown
    }
}

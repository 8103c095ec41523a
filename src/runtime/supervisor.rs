//! Who spawns, who stops, and what happens when a task dies.

use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Why a task's `run` ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to.
    Shutdown,
    /// Nobody can talk to it any more.
    Orphaned,
    /// It cannot do its work; the process should end.
    Fatal(String),
}

/// The side of a shutdown that waits for it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// The side of a shutdown that gives the word.
#[derive(Debug)]
pub struct ShutdownSwitch(watch::Sender<bool>);

impl ShutdownSwitch {
    /// A switch and what it switches.
    #[must_use]
    pub fn new() -> (Self, Shutdown) {
        let (tx, rx) = watch::channel(false);
        (Self(tx), Shutdown(rx))
    }

    /// Give the word. Dropping the switch gives it too.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Returns when the word was given.
    pub async fn wait(&mut self) {
        // An error says that the switch is gone, which is the word too.
        let _gone = self.0.wait_for(|stop| *stop).await.is_err();
    }

    /// Was the word given.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Spawns named tasks and learns how each ended. The only place that spawns.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: JoinSet<(String, Exit)>,
    names: Vec<(tokio::task::Id, String)>,
}

impl Supervisor {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Start a task.
    pub fn spawn<F>(&mut self, name: impl Into<String>, task: F)
    where
        F: Future<Output = Exit> + Send + 'static,
    {
        let name = name.into();
        let label = name.clone();
        let handle = self.tasks.spawn(async move { (label, task.await) });
        self.names.push((handle.id(), name));
    }

    /// Wait for the next task to end: its name and why. A panic is [`Exit::Fatal`]. `None`: no task is left.
    pub async fn next_exit(&mut self) -> Option<(String, Exit)> {
        Some(match self.tasks.join_next().await? {
            Ok(ended) => ended,
            Err(error) => {
                let name = self.names.iter().find(|(id, _)| *id == error.id()).map_or("task", |(_, n)| n.as_str());
                (name.to_owned(), Exit::Fatal(format!("{error}")))
            }
        })
    }

    /// Wait for all tasks to end; after `deadline` the rest are aborted. Returns the names of the aborted.
    pub async fn drain(&mut self, deadline: Duration) -> Vec<String> {
        let mut ended = Vec::new();
        let all = async {
            while let Some((name, _)) = self.next_exit().await {
                ended.push(name);
            }
        };
        if tokio::time::timeout(deadline, all).await.is_ok() {
            return Vec::new();
        }
        self.tasks.abort_all();
        self.names.iter().map(|(_, n)| n.clone()).filter(|n| !ended.contains(n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_with_the_tasks_name() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("good", async { Exit::Orphaned });
        assert_eq!(supervisor.next_exit().await, Some(("good".into(), Exit::Orphaned)));
        supervisor.spawn("bad", async { panic!("boom") });
        let Some((name, Exit::Fatal(why))) = supervisor.next_exit().await else { panic!("expected a fatal exit") };
        assert_eq!(name, "bad");
        assert!(why.contains("panic"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn drain_stops_at_its_deadline() {
        let mut supervisor = Supervisor::new();
        let (switch, mut shutdown) = ShutdownSwitch::new();
        supervisor.spawn("polite", async move {
            shutdown.wait().await;
            Exit::Shutdown
        });
        supervisor.spawn("deaf", std::future::pending());
        switch.stop();
        assert_eq!(supervisor.drain(Duration::from_secs(5)).await, vec!["deaf".to_owned()]);
    }
}

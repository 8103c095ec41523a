//! A will carried out over its link.

use super::Will;
use crate::link::{self, LinkError, LinkHandle, LinkState};
use crate::profile::{Answer, Check, Refusal, Request};
use crate::runtime::{Clock, ShutdownSwitch};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Three names and addresses that do not answer take this long.
const CONNECT: Duration = Duration::from_secs(10);

/// Why a device is not led back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is off, or busy: tried again slowly.
    #[error("{0}")]
    Unreached(String),
    /// It says no, or does not do what it was told: tried again seldom, for writing wears it.
    #[error("{0}")]
    Refused(String),
    /// Something else answers in its place: nothing was written.
    #[error("another device answers in its place: {0}")]
    Stranger(String),
}

/// Carry `will` out over a connection of its own, and prove it.
///
/// # Errors
/// [`Fault`]
pub async fn lead_back(will: &Will, clock: &Clock) -> Result<(), Fault> {
    let (link, task) = link::create(&will.link, will.pace, clock.clone()).map_err(|e| Fault::Refused(e.to_string()))?;
    let (switch, shutdown) = ShutdownSwitch::new();
    let work = async {
        let mut state = link.state();
        let opened = timeout(CONNECT, state.wait_for(|s| !matches!(s, LinkState::Connecting))).await;
        match opened.map(|s| s.map(|s| s.clone())) {
            Ok(Ok(LinkState::Up { .. })) => over(&link, will).await,
            Ok(Ok(LinkState::Down(why))) => Err(Fault::Unreached(why)),
            _ => Err(Fault::Unreached(format!("no connection to {}", will.link))),
        }
    };
    let mut task = std::pin::pin!(task.run(shutdown));
    let result = tokio::select! {
        result = work => result,
        exit = &mut task => return Err(Fault::Unreached(format!("the link ended: {exit:?}"))),
    };
    switch.stop();
    // The connection is closed when this has ended.
    let _why = task.await;
    result
}

/// Carry `will` out over an open link.
pub(crate) async fn over(link: &LinkHandle, will: &Will) -> Result<(), Fault> {
    for check in &will.way.known_by {
        if let Err(why) = prove(link, check).await? {
            return Err(Fault::Stranger(why));
        }
    }
    for request in &will.way.program.writes {
        ask(link, request).await?.map_err(|refusal| Fault::Refused(format!("{request}: {refusal}")))?;
    }
    sleep(will.way.program.settle).await;
    // A timer of the device is no part of its way back.
    for check in will.way.program.checks.iter().filter(|c| !c.failsafe) {
        prove(link, check).await?.map_err(Fault::Refused)?;
    }
    Ok(())
}

async fn prove(link: &LinkHandle, check: &Check) -> Result<Result<(), String>, Fault> {
    Ok(match ask(link, &check.read).await? {
        Ok(answer) => {
            let verdict = check.judge(&answer);
            let differs = || format!("{} reads {}, it should be {}", verdict.address, verdict.read, verdict.wrote);
            if verdict.ok { Ok(()) } else { Err(differs()) }
        }
        Err(refusal) => Err(format!("{}: {refusal}", check.read)),
    })
}

/// The device's own no is an answer; silence and "not now" are not.
async fn ask(link: &LinkHandle, request: &Request) -> Result<Result<Answer, Refusal>, Fault> {
    match link.request(request.clone()).await {
        Ok(answer) => Ok(Ok(answer)),
        Err(LinkError::Refused(refusal @ Refusal::Exception(5 | 6 | 10 | 11))) => {
            Err(Fault::Unreached(format!("{request}: {refusal}")))
        }
        Err(LinkError::Refused(refusal)) => Ok(Err(refusal)),
        Err(error) => Err(Fault::Unreached(error.to_string())),
    }
}

//! Reading one device once, without a daemon.

use crate::link::{LinkError, LinkHandle};
use crate::model::{DeviceInfo, Field, Point};
use crate::profile::{Answer, Driver, Refusal, Request, Step};

/// Find and read the device that `driver` stands for.
///
/// # Errors
/// A sentence: nothing answers, or it is not what the profile is for.
pub async fn probe(link: &LinkHandle, driver: &mut Driver) -> Result<(DeviceInfo, Vec<(Point, Field)>), String> {
    let mut step = driver.begin();
    loop {
        step = match step {
            Step::Ask(request) => driver.resume(ask(link, request).await?),
            Step::Ready => break,
            Step::NotFound(why) => return Err(why),
        };
    }
    let mut answers = Vec::new();
    for request in driver.reads().to_vec() {
        answers.push(ask(link, request).await?);
    }
    let points = driver.decode(&answers);
    Ok((driver.info().clone(), points))
}

/// The device's own "no" is an answer; everything else ends the probe.
async fn ask(link: &LinkHandle, request: Request) -> Result<Result<Answer, Refusal>, String> {
    match link.request(request).await {
        Ok(answer) => Ok(Ok(answer)),
        Err(LinkError::Refused(refusal)) => Ok(Err(refusal)),
        Err(other) => Err(other.to_string()),
    }
}

//! Things under way, each with a key, awaited together.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A small set of futures (at most some hundred): whichever is ready is handed out with its key.
pub(super) struct Flights<K, T> {
    items: Vec<(K, Boxed<T>)>,
}

impl<K, T> Flights<K, T> {
    pub(super) const fn new() -> Self {
        Self { items: Vec::new() }
    }

    pub(super) fn push(&mut self, key: K, future: impl Future<Output = T> + Send + 'static) {
        self.items.push((key, Box::pin(future)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many have such a key.
    pub(super) fn count(&self, which: impl Fn(&K) -> bool) -> usize {
        self.items.iter().filter(|(key, _)| which(key)).count()
    }

    /// The next that is ready, in the order of departure. Never returns while there is none. May be dropped at any time.
    pub(super) async fn next(&mut self) -> (K, T) {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// All that are ready now.
    pub(super) fn take_ready(&mut self) -> Vec<(K, T)> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut ready = Vec::new();
        while let Poll::Ready(item) = self.poll_next(&mut cx) {
            ready.push(item);
        }
        ready
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(K, T)> {
        for at in 0..self.items.len() {
            if let Poll::Ready(value) = self.items[at].1.as_mut().poll(cx) {
                let (key, _) = self.items.remove(at);
                return Poll::Ready((key, value));
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn hands_out_what_is_ready() {
        let mut flights = Flights::new();
        let (a, rx_a) = oneshot::channel::<u8>();
        let (b, rx_b) = oneshot::channel::<u8>();
        flights.push("a", rx_a);
        flights.push("b", rx_b);
        assert!(flights.take_ready().is_empty());
        b.send(2).unwrap();
        assert_eq!(flights.next().await, ("b", Ok(2)));
        assert_eq!(flights.count(|k| *k == "a"), 1);
        drop(a);
        let ready = flights.take_ready();
        assert_eq!((ready.len(), ready[0].0, ready[0].1.is_err()), (1, "a", true));
        assert!(flights.is_empty());
    }
}

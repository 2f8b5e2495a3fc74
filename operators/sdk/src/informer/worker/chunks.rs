//! The pieces of a watch's body, as they arrive or, for tests, a while later.

use std::{collections::VecDeque, future::pending, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep_until};
use tower::BoxError;

use crate::client::ResponseBody;

/// The pieces of a body as they arrive, or a while later.
pub(super) struct Chunks {
    body: ResponseBody,
    delay: Duration,
    held_back: VecDeque<(Instant, Option<Result<Bytes, BoxError>>)>,
    ended: bool,
}

impl Chunks {
    pub(super) fn new(body: ResponseBody, delay: Duration) -> Self {
        Self { body, delay, held_back: VecDeque::new(), ended: false }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        if self.delay.is_zero() {
            return Self::receive(&mut self.body).await;
        }
        loop {
            let due = self.held_back.front().map(|(due, _)| *due);
            let due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = due => return self.held_back.pop_front().and_then(|(_, chunk)| chunk),
                chunk = Self::receive(&mut self.body), if !self.ended => {
                    self.ended = chunk.is_none();
                    self.held_back.push_back((Instant::now() + self.delay, chunk));
                }
            }
        }
    }

    async fn receive(body: &mut ResponseBody) -> Option<Result<Bytes, BoxError>> {
        loop {
            match body.frame().await? {
                Err(error) => return Some(Err(error)),
                // Trailers say nothing here.
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
            }
        }
    }
}

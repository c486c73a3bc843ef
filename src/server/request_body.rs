//! The body of a request, which reaches the decoder one whole message at a time.
//!
//! A gRPC message begins with its length, and the decoder of tonic reserves that much at once. So this holds back what
//! has arrived of a message until it is complete, and refuses one that is too long, or too slow.

use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, poll_immediate};
use http_body::{Body as _, Frame};
use tokio::time::sleep;
use tonic::Status;
use tonic::body::Body;

use super::limits::{CallShare, MESSAGE_BYTES, MESSAGE_TIME};

/// The length of what precedes a message: a flag, and four bytes of length.
const PREFIX: usize = 5;

type Item = Option<Result<Frame<Bytes>, Status>>;

/// A body that returns whole messages.
pub(super) struct RequestBody {
    /// The next item; `None` after the end.
    next: Option<BoxFuture<'static, (Messages, Item)>>,
}

impl RequestBody {
    /// Waits for the first message, or for the end of a body without one.
    ///
    /// # Errors
    /// The message is too long or too slow, or too many calls are in progress.
    pub(super) async fn begin(body: Body, share: CallShare) -> Result<Self, Status> {
        let messages = Messages {
            body,
            arrived: BytesMut::new(),
            share,
        };
        let (messages, first) = messages.next().await;
        let first = first.transpose()?.map(Ok);
        Ok(Self {
            next: Some(ready((messages, first)).boxed()),
        })
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Item> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let (messages, item) = std::task::ready!(next.poll_unpin(cx));
        self.next = matches!(item, Some(Ok(_))).then(|| messages.next().boxed());
        Poll::Ready(item)
    }
}

struct Messages {
    body: Body,
    /// The bytes of the message that is not complete yet.
    arrived: BytesMut,
    share: CallShare,
}

impl Messages {
    /// Waits for a message, the trailers or the end.
    async fn next(mut self) -> (Self, Item) {
        let arriving = self.share.budget().arriving.clone();
        let received = {
            let mut receive = std::pin::pin!(self.receive());
            if let Some(item) = poll_immediate(&mut receive).await {
                Ok(item)
            } else {
                let request = arriving.add();
                tokio::select! {
                    biased;
                    item = receive => Ok(item),
                    () = request.replaced() => Err("too many other requests are arriving"),
                    () = sleep(MESSAGE_TIME) => Err("that takes too long"),
                }
            }
        };
        let item = match received {
            Ok(item) => item.transpose(),
            Err(why) => Some(Err(Status::unavailable(format!(
                "the request has not arrived in full, and {why}: {} bytes of its next message have arrived within at most \
                 {} s; call again",
                self.arrived.len(),
                MESSAGE_TIME.as_secs()
            )))),
        };
        (self, item)
    }

    async fn receive(&mut self) -> Result<Option<Frame<Bytes>>, Status> {
        let mut admitted = false;
        loop {
            if let Some(length) = self.length()? {
                if !std::mem::replace(&mut admitted, true) {
                    self.share.add_message(length).await;
                }
                if self.arrived.len() >= length {
                    self.share.begin()?;
                    return Ok(Some(Frame::data(self.arrived.split_to(length).freeze())));
                }
            }
            let frame = match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                Some(frame) => frame?,
                // The decoder refuses a message that ends too early.
                None if self.arrived.has_remaining() => {
                    return Ok(Some(Frame::data(std::mem::take(&mut self.arrived).freeze())));
                }
                None => return Ok(None),
            };
            match frame.into_data() {
                Ok(data) => self.arrived.extend_from_slice(&data),
                Err(trailers) => return Ok(Some(trailers)),
            }
        }
    }

    /// Returns the length of the message that has begun, with its prefix.
    fn length(&self) -> Result<Option<usize>, Status> {
        let Some((prefix, _)) = self.arrived.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [_, length @ ..] = *prefix;
        let length = u32::from_be_bytes(length) as usize;
        if length > MESSAGE_BYTES {
            return Err(Status::out_of_range(format!(
                "the request has a message of {length} bytes, and at most {MESSAGE_BYTES} are accepted"
            )));
        }
        Ok(Some(PREFIX + length))
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use tokio::sync::mpsc;
    use tonic::Code;

    use super::super::limits::{CallBudget, Limits};
    use super::*;

    /// A body whose frames a test sends.
    struct Frames(mpsc::UnboundedReceiver<Bytes>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Item> {
            self.0
                .poll_recv(cx)
                .map(|data| data.map(|data| Ok(Frame::data(data))))
        }
    }

    fn channel() -> (mpsc::UnboundedSender<Bytes>, Body) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Body::new(Frames(receiver)))
    }

    async fn begin(body: Body) -> Result<RequestBody, Status> {
        RequestBody::begin(body, CallBudget::new(Limits::default()).share()).await
    }

    async fn next(body: &mut RequestBody) -> Option<Result<Bytes, Status>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    fn message(content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&[0], &length[..], content].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn messages_arrive_whole_however_they_are_cut() {
        let sent = [message(b"one"), message(b""), message(&[7; 1000])];
        for piece in [1, 4, 5, 7, 4096] {
            let (sender, body) = channel();
            for piece in sent.concat().chunks(piece) {
                sender.send(Bytes::copy_from_slice(piece)).unwrap();
            }
            drop(sender);
            let mut body = begin(body).await.unwrap();
            for message in &sent {
                assert_eq!(next(&mut body).await.unwrap().unwrap(), message, "{piece}");
            }
            assert!(next(&mut body).await.is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_too_long_is_refused_by_its_announcement() {
        let announced = u32::try_from(MESSAGE_BYTES + 1).unwrap().to_be_bytes();
        let announced = [&[0], &announced[..]].concat();
        for before in [None, Some(message(b"one"))] {
            let (sender, body) = channel();
            sender
                .send(
                    [before.clone().unwrap_or_default(), announced.clone()]
                        .concat()
                        .into(),
                )
                .unwrap();
            let refused = match begin(body).await {
                Err(refused) => refused,
                Ok(mut body) => {
                    assert_eq!(next(&mut body).await.unwrap().unwrap(), before.unwrap());
                    let refused = next(&mut body).await.unwrap().unwrap_err();
                    assert!(next(&mut body).await.is_none());
                    refused
                }
            };
            assert_eq!(refused.code(), Code::OutOfRange);
            assert!(refused.message().contains("1048577 bytes"), "{refused}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_arrive_is_abandoned() {
        for begun in [&b""[..], b"\0\0\0", b"\0\0\x10\0\0ten bytes."] {
            let (sender, body) = channel();
            sender.send(Bytes::copy_from_slice(begun)).unwrap();
            let abandoned = begin(body).await.err().unwrap();
            assert_eq!(abandoned.code(), Code::Unavailable);
            assert!(
                abandoned
                    .message()
                    .contains(&format!("{} bytes of its next", begun.len())),
                "{abandoned}"
            );
        }
        let (sender, body) = channel();
        sender.send(message(b"one").into()).unwrap();
        let mut body = begin(body).await.unwrap();
        next(&mut body).await.unwrap().unwrap();
        let abandoned = next(&mut body).await.unwrap().unwrap_err();
        assert_eq!(
            abandoned.code(),
            Code::Unavailable,
            "the end of the request is missing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_too_early_is_for_the_decoder_to_refuse() {
        let (sender, body) = channel();
        sender.send(Bytes::from_static(b"\0\0\0\0\x05abc")).unwrap();
        drop(sender);
        let mut body = begin(body).await.unwrap();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), &b"\0\0\0\0\x05abc"[..]);
        assert!(next(&mut body).await.is_none());
    }
}

//! How Mesos calls: each time on a new connection, with a timeout of a minute in all.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flocker_csi::config::Endpoint;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::MetadataValue;
use tonic::transport::{self, Channel};
use tonic::{Code, Request, Response, Status};

use super::failure::Failure;

/// The timeout of each call of Mesos, including the connection.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The interval between attempts to connect.
const RECONNECT: Duration = Duration::from_millis(10);

/// How one plugin is called.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) endpoint: Endpoint,
    /// For each call.
    pub(crate) deadline: Duration,
    /// For each call that is repeated when it fails.
    pub(crate) deadline_of_repeated: Duration,
    /// The longest back-off before a call is repeated for the first time.
    pub(crate) back_off: Duration,
    /// The names of the calls, in order.
    made: Arc<Mutex<Vec<&'static str>>>,
}

/// A connection for one call.
pub(crate) struct Connected {
    pub(crate) channel: Channel,
    left: Duration,
}

impl Connected {
    /// Makes a request with a deadline.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let time = match self.left.as_millis() {
            60_000 => "1M".to_owned(),
            less => format!("{less}m"),
        };
        let time = MetadataValue::try_from(time).unwrap();
        request.metadata_mut().insert("grpc-timeout", time);
        request
    }
}

impl Calls {
    pub(crate) fn to(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            deadline: DEADLINE,
            deadline_of_repeated: DEADLINE,
            back_off: Duration::from_secs(10),
            made: Arc::default(),
        }
    }

    /// Makes a call, once.
    pub(crate) async fn call<T, F>(
        &self,
        name: &'static str,
        call: impl FnOnce(Connected) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_within(self.deadline, name, call).await
    }

    async fn call_within<T, F>(
        &self,
        deadline: Duration,
        name: &'static str,
        call: impl FnOnce(Connected) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.made.lock().unwrap().push(name);
        let began = Instant::now();
        let connected = self.connect(deadline, began).await?;
        let left = connected.left;
        let answer = timeout(left, call(connected)).await.unwrap_or_else(|_elapsed| {
            // The transport measures the same time, and may report it second.
            Err(Status::deadline_exceeded("Deadline Exceeded"))
        });
        match answer {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) if status.code() == Code::Cancelled && began.elapsed() >= deadline => {
                Err(Status::deadline_exceeded("Deadline Exceeded").into())
            }
            Err(status) => Err(status.into()),
        }
    }

    /// Makes a call again while it fails in one of the two ways after which Mesos repeats it.
    pub(crate) async fn call_until_final<T, F>(
        &self,
        name: &'static str,
        mut call: impl FnMut(Connected) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut back_off = self.back_off;
        loop {
            let answer = self.call_within(self.deadline_of_repeated, name, &mut call).await;
            match answer.as_ref().err().and_then(Failure::code) {
                Some(Code::DeadlineExceeded | Code::Unavailable) => {
                    sleep(back_off.mul_f64(rand::random::<f64>())).await;
                    back_off *= 2;
                }
                _ => return answer,
            }
        }
    }

    /// Waits for a plugin that does not run, as long as a call may take.
    async fn connect(&self, deadline: Duration, began: Instant) -> Result<Connected, Failure> {
        let endpoint = transport::Endpoint::from_shared(self.endpoint.to_string()).unwrap();
        // Mesos sends this as `:authority` for every path of the socket.
        let endpoint = endpoint.origin("http://localhost".parse().unwrap());
        loop {
            let left = deadline.saturating_sub(began.elapsed());
            let error = match timeout(left, endpoint.connect()).await {
                Ok(Ok(channel)) => {
                    return Ok(Connected {
                        channel,
                        left: whole(deadline, left),
                    });
                }
                Ok(Err(error)) => error.to_string(),
                Err(_elapsed) => "no answer".to_owned(),
            };
            if began.elapsed() >= deadline {
                let text = format!("Deadline Exceeded ({error})");
                return Err(Status::deadline_exceeded(text).into());
            }
            sleep(RECONNECT).await;
        }
    }

    /// Returns the names of the calls since the last time.
    pub(crate) fn take_made(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.made.lock().unwrap())
    }
}

/// Mesos reports the whole time unless it had to wait for the plugin.
fn whole(deadline: Duration, left: Duration) -> Duration {
    if deadline.saturating_sub(left) < Duration::from_secs(1) {
        deadline
    } else {
        left
    }
}

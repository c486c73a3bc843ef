//! The output of the demo: one line for each step, with its duration.

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::seconds;

/// How often the indicator moves.
const FRAME: Duration = Duration::from_millis(100);
const FRAMES: [char; 4] = ['|', '/', '-', '\\'];

/// Moves the cursor to the start of the line and erases the line.
const REWRITE: &str = "\r\x1b[K";

/// The terminal, file or pipe that receives the output of the demo.
///
/// A terminal shows a moving indicator during a step; other outputs get plain lines, the first part of each as soon as
/// the step begins. A closed output changes nothing.
pub(super) struct Screen {
    output: Box<dyn Write + Send>,
    terminal: bool,
}

/// The outcome of a shown step.
pub(super) struct Shown<T, E> {
    pub(super) outcome: Result<T, E>,
    /// The text after the duration.
    pub(super) remark: String,
}

impl Screen {
    pub(super) fn new(output: Box<dyn Write + Send>, terminal: bool) -> Self {
        Self { output, terminal }
    }

    /// Prints a line.
    pub(super) fn say(&mut self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Shows that `work` is running, and then its outcome.
    pub(super) async fn show<T, E>(
        &mut self,
        label: &str,
        title: &str,
        work: impl Future<Output = Shown<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let line = format!("{label:<10}  {title} … ");
        self.write(&line);
        let shown = self.wait(&line, began, work).await;
        let end = match (&shown.outcome, shown.remark.as_str()) {
            (Ok(_), "") => seconds(began.elapsed()),
            (Ok(_), remark) => format!("{}  ({remark})", seconds(began.elapsed())),
            (Err(_), "") => format!("failed after {}", seconds(began.elapsed())),
            (Err(_), remark) => format!("{remark} after {}", seconds(began.elapsed())),
        };
        if self.terminal {
            self.write(REWRITE);
            self.write(&line);
        }
        self.write(&format!("{end}\n"));
        shown.outcome
    }

    async fn wait<T>(&mut self, line: &str, began: Instant, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if !self.terminal {
            return work.await;
        }
        let mut ticks = interval(FRAME);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first tick completes immediately.
        ticks.tick().await;
        for frame in FRAMES.iter().cycle() {
            tokio::select! {
                biased;
                output = &mut work => return output,
                _ = ticks.tick() => self.write(&format!("{REWRITE}{line}{frame} {:.1} s", began.elapsed().as_secs_f64())),
            }
        }
        work.await
    }

    fn write(&mut self, text: &str) {
        // The output may be closed; the demo must clean up all the same.
        self.output
            .write_all(text.as_bytes())
            .and_then(|()| self.output.flush())
            .ok();
    }
}

impl<T, E> Shown<T, E> {
    /// Makes an outcome without a remark.
    pub(super) fn of(outcome: Result<T, E>) -> Self {
        Self {
            outcome,
            remark: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Output {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    async fn work(takes: Duration, outcome: Result<(), ()>, remark: &str) -> Shown<(), ()> {
        tokio::time::advance(takes).await;
        Shown {
            outcome,
            remark: remark.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_gets_one_plain_line_for_each_step_with_its_duration() {
        let output = Output::default();
        let mut screen = Screen::new(Box::new(output.clone()), false);
        let second = Duration::from_secs(1);
        screen
            .show("step  1/20", "create a volume", work(second, Ok(()), "128 MiB"))
            .await
            .unwrap();
        screen
            .show("undo", "delete it", work(second * 2, Ok(()), ""))
            .await
            .unwrap();
        screen
            .show("step  2/20", "attach it", work(second, Err(()), ""))
            .await
            .unwrap_err();
        screen
            .show("step  3/20", "stage it", work(second, Err(()), "interrupted"))
            .await
            .unwrap_err();
        assert_eq!(
            output.text(),
            "step  1/20  create a volume … 1.00 s  (128 MiB)\n\
             undo        delete it … 2.00 s\n\
             step  2/20  attach it … failed after 1.00 s\n\
             step  3/20  stage it … interrupted after 1.00 s\n"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_gets_the_title_of_a_step_before_the_step_runs() {
        let output = Output::default();
        let mut screen = Screen::new(Box::new(output.clone()), false);
        let seen = output.clone();
        let work = async move {
            let begun = seen.text();
            Shown::of(Ok::<_, ()>(begun))
        };
        let begun = screen.show("step  1/20", "create a volume", work).await.unwrap();
        assert_eq!(begun, "step  1/20  create a volume … ");
    }

    #[tokio::test(start_paused = true)]
    async fn a_terminal_shows_an_indicator_during_a_step_and_the_same_line_at_the_end() {
        let output = Output::default();
        let mut screen = Screen::new(Box::new(output.clone()), true);
        let wait = async {
            tokio::time::sleep(FRAME * 2 + FRAME / 2).await;
            Shown::of(Ok::<_, ()>(()))
        };
        screen.show("step  1/20", "create a volume", wait).await.unwrap();
        let text = output.text();
        let frames: Vec<_> = text.split(REWRITE).collect();
        assert_eq!(frames.len(), 4, "{frames:?}");
        assert_eq!(frames[1], "step  1/20  create a volume … | 0.1 s");
        assert_eq!(frames[2], "step  1/20  create a volume … / 0.2 s");
        assert_eq!(frames[3], "step  1/20  create a volume … 0.25 s\n");
    }
}

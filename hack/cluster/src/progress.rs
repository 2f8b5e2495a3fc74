//! Progress of long steps, with elapsed time: one line that is rewritten on a terminal, plain lines elsewhere.
//!
//! Steps may run at the same time from several threads; a step prints when it ends, so that lines never mix.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Where progress goes. Cheap to clone; all clones share one clock and one terminal.
#[derive(Clone, Debug)]
pub struct Progress {
    inner: Arc<Mutex<Screen>>,
    start: Instant,
}

#[derive(Debug)]
struct Screen {
    /// Names of the steps under way, oldest first: what the live line shows.
    running: Vec<String>,
    live: bool,
}

/// One step under way. Dropping it without [`Step::done`] reports it as failed.
#[derive(Debug)]
pub struct Step {
    progress: Progress,
    name: String,
    start: Instant,
    ended: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Progress on standard error: live when that is a terminal, plain lines otherwise.
    pub fn new() -> Self {
        let screen = Screen { running: Vec::new(), live: std::io::stderr().is_terminal() };
        Self { inner: Arc::new(Mutex::new(screen)), start: Instant::now() }
    }

    /// Begins a step. Its line appears when it ends (and, on a terminal, also while it runs).
    pub fn step(&self, name: impl Into<String>) -> Step {
        let name = name.into();
        self.with(|screen| screen.running.push(name.clone()));
        Step { progress: self.clone(), name, start: Instant::now(), ended: false }
    }

    /// Runs `work` as one step.
    pub fn run<T, E>(&self, name: impl Into<String>, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let step = self.step(name);
        let result = work();
        if result.is_ok() {
            step.done();
        }
        result
    }

    /// Prints one line of its own between the steps.
    pub fn note(&self, text: &str) {
        let total = self.start.elapsed();
        self.with(|screen| screen.line(&format!("{:>8}  {text}", seconds(total))));
    }

    /// Time since this progress was created.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn with(&self, change: impl FnOnce(&mut Screen)) {
        // A panicking step must not silence the others: the screen's state is valid at every point.
        let mut screen = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut screen);
        screen.redraw(self.start.elapsed());
    }
}

impl Step {
    /// Ends the step as succeeded and prints its line.
    pub fn done(self) {
        self.done_with("");
    }

    /// Ends the step as succeeded; `detail` says what came of it.
    pub fn done_with(mut self, detail: &str) {
        self.end("ok", detail);
    }

    /// Replaces the text that the live line shows for this step (no effect on plain output).
    pub fn update(&mut self, name: impl Into<String>) {
        let new = name.into();
        let old = std::mem::replace(&mut self.name, new.clone());
        self.progress.with(|screen| {
            if let Some(entry) = screen.running.iter_mut().find(|entry| **entry == old) {
                *entry = new;
            }
        });
    }

    fn end(&mut self, mark: &str, detail: &str) {
        self.ended = true;
        let (total, took) = (self.progress.start.elapsed(), self.start.elapsed());
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        let line = format!("{:>8}  {mark:<6} {}{detail} ({})", seconds(total), self.name, seconds(took));
        let name = self.name.clone();
        self.progress.with(|screen| {
            if let Some(at) = screen.running.iter().position(|entry| *entry == name) {
                screen.running.remove(at);
            }
            screen.line(&line);
        });
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end("FAILED", "");
        }
    }
}

impl Screen {
    /// Prints a finished line. Losing progress output (closed pipe) is no reason to stop the work.
    fn line(&self, text: &str) {
        let erase = if self.live { "\r\x1b[2K" } else { "" };
        let _ = writeln!(std::io::stderr().lock(), "{erase}{text}");
    }

    fn redraw(&self, total: Duration) {
        if !self.live {
            return;
        }
        let mut err = std::io::stderr().lock();
        let text = self.running.join(", ");
        let shown: String = text.chars().take(90).collect();
        let text = if self.running.is_empty() {
            String::new()
        } else {
            format!("{:>8}  … {shown}", seconds(total))
        };
        let _ = write!(err, "\r\x1b[2K{text}");
        let _ = err.flush();
    }
}

/// `0.4s`, `12.3s`, `3m07s`.
pub fn seconds(duration: Duration) -> String {
    let total = duration.as_secs();
    if total < 60 {
        return format!("{}.{}s", total, duration.subsec_millis() / 100);
    }
    format!("{}m{:02}s", total / 60, total % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The unit follows the size, so that a line stays short and comparable.
    #[test]
    fn durations_read_well() {
        let shown = [0, 950, 12_340, 187_000].map(|ms| seconds(Duration::from_millis(ms)));
        assert_eq!(shown, ["0.0s", "0.9s", "12.3s", "3m07s"]);
    }
}

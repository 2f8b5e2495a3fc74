//! What is logged and how: `--v=0..9` as in client-go's programs, `RUST_LOG` for everything finer.

use std::{fmt, io, str::FromStr};

use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines, one object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = LoggingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LoggingError::Format(text.to_owned())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Logging cannot be set up as asked.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Neither text nor json.
    #[error("log format {0:?} is neither text nor json")]
    Format(String),
    /// `RUST_LOG` does not parse.
    #[error("RUST_LOG cannot be used: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else in this process logs already.
    #[error("logging is set up already: {0}")]
    Twice(Box<dyn std::error::Error + Send + Sync>),
}

/// Sets up logging to standard error. `RUST_LOG`, if set, wins over `verbosity`.
pub fn init(verbosity: u8, format: LogFormat) -> Result<(), LoggingError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(directives)?,
        Ok(_) | Err(_) => EnvFilter::try_new(directives(verbosity))?,
    };
    let spans = if verbosity >= 6 { FmtSpan::CLOSE } else { FmtSpan::NONE };
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_span_events(spans);
    match format {
        LogFormat::Text => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    }
    .map_err(LoggingError::Twice)
}

/// The levels of client-go's conventions: 2 is what an operator wants to see, 4 is debugging, 6 and up show
/// requests, and then what is in them.
fn directives(verbosity: u8) -> &'static str {
    match verbosity {
        0 | 1 => "warn,trysail=info",
        2 | 3 => "info",
        4 | 5 => "info,trysail=debug",
        6 | 7 => "debug,hyper_util=info,rustls=info,tower=info",
        8 => "trace,hyper_util=info,rustls=info,tower=info",
        9.. => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verbosity_is_a_filter_and_shows_no_less_than_the_one_below() {
        let mut before = None;
        for verbosity in 0..=10 {
            let filter = EnvFilter::try_new(directives(verbosity)).unwrap();
            let level = filter.max_level_hint();
            assert!(before <= Some(level), "{verbosity}");
            before = Some(level);
        }
    }

    #[test]
    fn formats_round_trip_and_others_are_refused() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse::<LogFormat>().unwrap(), format);
        }
        assert!("xml".parse::<LogFormat>().unwrap_err().to_string().contains("xml"));
    }
}

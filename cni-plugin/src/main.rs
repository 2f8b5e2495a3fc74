//! The plugin as a program: the environment and stdin in, one JSON object on stdout out. Besides, `cleanup` by hand.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;
use trysail_cni::conf::DATA_DIR;
use trysail_cni::spec::{CniError, Code, Environment, SpecVersion};
use trysail_cni::store::Store;
use trysail_cni::verbs::{Face, cleanup, error_version, run};

fn main() -> ExitCode {
    let face = Face::of(&std::env::args().next().unwrap_or_default());
    if std::env::args().nth(1).is_some_and(|argument| argument == "cleanup") {
        return clean(std::env::args_os().nth(2));
    }
    let environment = Environment::read(|name| std::env::var(name).ok());
    let mut stdin = Vec::new();
    let outcome = match environment {
        Ok(None) => return about(face),
        // An error of the environment is answered without waiting for a configuration that may never come.
        Err(error) => Err(error),
        Ok(Some(environment)) => match std::io::stdin().lock().read_to_end(&mut stdin) {
            Ok(_) => run(face, &environment, &stdin),
            Err(error) => Err(CniError::new(Code::Io, format!("failed to read stdin: {error}"))),
        },
    };
    match outcome {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(value)) => print(&value, ExitCode::SUCCESS),
        Err(error) => print(&error.to_json(&error_version(&stdin)), ExitCode::FAILURE),
    }
}

/// `trysail-cni cleanup [DATA_DIR]`: removes everything of the plugin from this node, for who uninstalls it while its
/// agent was down.
fn clean(data_dir: Option<std::ffi::OsString>) -> ExitCode {
    let store = Store::new(&data_dir.map_or_else(|| DATA_DIR.into(), PathBuf::from));
    match cleanup(&store) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Installers call plugins without a command to see that they run.
fn about(face: Face) -> ExitCode {
    let name = match face {
        Face::Network => "pod network",
        Face::Loopback => "loopback",
    };
    let versions = SpecVersion::ALL.map(SpecVersion::as_str).join(", ");
    eprintln!(
        "trysail-cni {} ({name})\nCNI protocol versions supported: {versions}",
        env!("CARGO_PKG_VERSION")
    );
    ExitCode::SUCCESS
}

/// A runtime that does not read the answer has not been answered.
fn print(value: &Value, code: ExitCode) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let printed = serde_json::to_writer(&mut stdout, value).is_ok() && writeln!(stdout).is_ok();
    if printed { code } else { ExitCode::FAILURE }
}

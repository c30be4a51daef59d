//! Running commands, said aloud.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// The result of a task or a step of it; the message is for the person.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().map_or_else(|| own.to_owned(), Path::to_owned)
}

/// The folder that cargo builds into.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Cargo, as it was called.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Prints a command and runs it to its end; its output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("\n$ {}", shown(command));
    let status = command.status().map_err(|error| format!("{}: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", shown(command))) }
}

/// Prints a command, runs it, and gives what it wrote to stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    eprintln!("\n$ {}", shown(command));
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("{}: {error}", shown(command)))?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    println!("{text}");
    if output.status.success() { Ok(text) } else { Err(format!("{}: {}", shown(command), output.status)) }
}

/// A child that is ended when it goes out of scope.
pub(crate) struct Running(Child);

impl Running {
    /// Prints a command and starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        eprintln!("\n$ {} &", shown(command));
        command.spawn().map(Self).map_err(|error| format!("{}: {error}", shown(command)))
    }

    /// The child, to read from.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; nothing is left to do then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    let words = command.get_args().map(|word| {
        let word = word.to_string_lossy();
        if word.contains([' ', '?', '"']) { format!("'{word}'") } else { word.into_owned() }
    });
    std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ")
}

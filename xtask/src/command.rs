//! Running other programs, with errors that name the whole command line.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Takes output piece by piece.
pub type Sink<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// What this crate does with a [`Command`].
pub trait Run {
    /// The command line as one would type it.
    fn line(&self) -> String;
    /// Runs it on this terminal and returns how it ended.
    fn status_of(&mut self) -> Result<ExitStatus>;
    /// Runs it on this terminal; an exit status other than 0 is an error.
    fn run(&mut self) -> Result<()>;
    /// Runs it on this terminal and passes what it prints to `output` too.
    fn tee(&mut self, output: Sink) -> Result<ExitStatus>;
    /// Runs it and returns what it printed; an exit status other than 0 is an
    /// error that quotes its standard error.
    fn read(&mut self) -> Result<String>;
}

impl Run for Command {
    fn line(&self) -> String {
        let words = [self.get_program()].into_iter().chain(self.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    fn status_of(&mut self) -> Result<ExitStatus> {
        self.status().with_context(|| format!("cannot run `{}`", self.line()))
    }

    fn run(&mut self) -> Result<()> {
        let status = self.status_of()?;
        if !status.success() {
            bail!("`{}` failed: {status}", self.line());
        }
        Ok(())
    }

    fn tee(&mut self, output: Sink) -> Result<ExitStatus> {
        let mut child = self
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{}`", self.line()))?;
        if let Some(stdout) = child.stdout.take() {
            copy(stdout, &mut io::stdout(), output);
        }
        child.wait().with_context(|| format!("cannot wait for `{}`", self.line()))
    }

    fn read(&mut self) -> Result<String> {
        let output = self
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run `{}`", self.line()))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("`{}` failed: {}\n{}", self.line(), output.status, errors.trim_end());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Copies until the end, every piece as soon as it is there.
pub fn copy(mut from: impl Read, to: &mut dyn Write, also: Sink) {
    let mut buffer = [0; 8192];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let piece = &buffer[..count];
                also(piece);
                // A reader that went away must not stop the writer.
                let _ = to.write_all(piece).and_then(|()| to.flush());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(_) => return,
        }
    }
}

/// The exit status as a shell gives it: a signal counts from 128.
pub fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

//! Who root is here: this user, or one who may ask sudo(8).

use std::io::{IsTerminal, stdin};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::find;

/// How this user becomes root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// The user is root.
    Already,
    /// sudo asks for nothing.
    Sudo,
    /// sudo asks for a password, and there is a terminal to give it.
    SudoWithPassword,
    /// There is no sudo.
    NoSudo,
    /// sudo asks for a password, and nobody can be asked.
    NobodyToAsk,
}

impl Root {
    /// How it is for this user.
    pub fn here() -> Self {
        if nix::unistd::geteuid().is_root() {
            return Self::Already;
        }
        if find::program("sudo").is_none() {
            return Self::NoSudo;
        }
        let asks_nothing = Command::new("sudo")
            .args(["-n", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        match asks_nothing {
            true => Self::Sudo,
            false if stdin().is_terminal() => Self::SudoWithPassword,
            false => Self::NobodyToAsk,
        }
    }

    /// What this user types to have root run `command`.
    pub fn line(self, command: &str) -> String {
        match self {
            Self::Already => command.to_owned(),
            Self::NoSudo => format!("su -c '{command}'"),
            _ => format!("sudo {command}"),
        }
    }

    /// For a list of what this machine has.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Already => "you are root",
            Self::Sudo => "by sudo, which asks for nothing",
            Self::SudoWithPassword => "by sudo, which asks for your password",
            Self::NoSudo => "not available: you are not root, and there is no sudo",
            Self::NobodyToAsk => {
                "not available: sudo asks for a password, and there is no terminal to ask on"
            }
        }
    }
}

/// `program` run by root: directly, or through sudo.
pub fn as_root(program: &str) -> Result<Command> {
    let root = Root::here();
    let mut sudo = Command::new("sudo");
    match root {
        Root::Already => {
            let mut command = Command::new(program);
            command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
            return Ok(command);
        }
        Root::Sudo => {
            sudo.arg("-n");
        }
        Root::SudoWithPassword => (),
        Root::NoSudo | Root::NobodyToAsk => {
            bail!("root, who must run `{program}`, is {}", root.describe())
        }
    }
    sudo.args(["env", "DEBIAN_FRONTEND=noninteractive", program]);
    Ok(sudo)
}

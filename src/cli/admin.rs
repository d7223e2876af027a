//! `blind-relay admin`: what the operator may have a running server do.

use clap::{Args, Subcommand};

/// What to have done, and how it is told.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// What.
    #[command(subcommand)]
    pub step: AdminStep,
    /// As JSON, for programs.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to have a running server do.
#[derive(Clone, Debug, Subcommand)]
pub enum AdminStep {
    /// Sums: accounts, devices, what waits, keys, connections, refusals, size. Nothing of any one account.
    Stats,
    /// Look at, suspend, resume or delete an account.
    #[command(after_help = ACCOUNT_EXAMPLES)]
    Account {
        /// What to do with it.
        #[command(subcommand)]
        step: AccountStep,
    },
    /// Make, list and revoke invites, for `registration = "invite"`.
    #[command(after_help = INVITE_EXAMPLES)]
    Invite {
        /// What to do with them.
        #[command(subcommand)]
        step: InviteStep,
    },
    /// Send the clients of this node to others: not ready, no new sockets, open ones closed within drain_secs. It goes on
    /// answering until it is stopped.
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain {
        /// Let clients in again.
        #[arg(long, conflicts_with = "wait")]
        undo: bool,
        /// Return when no socket is left, and tell until then how many there are.
        #[arg(long)]
        wait: bool,
    },
    /// Show what was done through the admin socket, or see that nobody changed the record of it.
    #[command(after_help = LOG_EXAMPLES, args_conflicts_with_subcommands = true)]
    Log {
        /// What else to do with it.
        #[command(subcommand)]
        step: Option<LogStep>,
        /// The newest so many.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        last: u32,
        /// Only what was about this account.
        #[arg(long, value_name = "ACI")]
        account: Option<String>,
    },
}

/// What to do with an account.
#[derive(Clone, Debug, Subcommand)]
pub enum AccountStep {
    /// Tell whether it is suspended, how many devices it has, and on which day one of them was last seen. Written down.
    Show {
        /// The account's id.
        #[arg(value_name = "ACI")]
        aci: String,
    },
    /// Shut it out within five seconds, on every node. What is sent to it goes on waiting for it.
    Suspend {
        /// The account's id.
        #[arg(value_name = "ACI")]
        aci: String,
    },
    /// Let it in again.
    Resume {
        /// The account's id.
        #[arg(value_name = "ACI")]
        aci: String,
    },
    /// Delete it with everything that is kept of it. There is no way back.
    Delete {
        /// The account's id.
        #[arg(value_name = "ACI")]
        aci: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// What to do with invites.
#[derive(Clone, Debug, Subcommand)]
pub enum InviteStep {
    /// Make one. Its code is shown once, and kept nowhere.
    Create {
        /// How many numbers it lets in.
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
        /// For how many days after today it is good.
        #[arg(long, value_name = "D", default_value_t = 7)]
        days: u16,
        /// Digits alone, for clients whose field for the code takes nothing else.
        #[arg(long)]
        digits: bool,
        /// It also starts a number over that has an account: for somebody who lost all devices. Whoever has such a code can
        /// take over any number.
        #[arg(long)]
        recover: bool,
    },
    /// Show those that let somebody in yet, without their codes.
    List,
    /// Make one worthless. Whoever it has let in stays.
    Revoke {
        /// Its id, which `create` and `list` show.
        id: String,
    },
}

/// What else to do with the log.
#[derive(Clone, Debug, Subcommand)]
pub enum LogStep {
    /// See that no entry was changed, removed, inserted or exchanged, and show the head.
    Verify {
        /// A head that was noted earlier: it must still be there.
        #[arg(long, value_name = "SEQ:HASH")]
        noted: Option<String>,
    },
}

pub(super) const EXAMPLES: &str = "\
Examples:
  blind-relay admin stats                                      How much there is, and what limits refused
  blind-relay --config relay.toml admin stats --json           The same for a program, of the server with these settings
  blind-relay admin drain --wait                               Before this node is stopped, where there are others

Give the settings of the server itself: its data directory has the socket. It is for the server's own user and root, on the
server's machine, and for nobody else. There is no command that reads a message, adds a device, sets a key or signs in as
somebody; whoever asks for that has it written down.

Exit status: 0 done, 1 not done, 2 wrong usage or configuration.";

pub(super) const ACCOUNT_EXAMPLES: &str = "\
Examples:
  blind-relay admin account show 2c6ba2f8-3b6e-4a6e-9a2e-1f5c1b7a9d10
  blind-relay admin account suspend 2c6ba2f8-3b6e-4a6e-9a2e-1f5c1b7a9d10
  blind-relay admin account delete 2c6ba2f8-3b6e-4a6e-9a2e-1f5c1b7a9d10 --yes

An account is named by its ACI, which its owner and those who write to it know. Numbers and user names name nobody here.";

pub(super) const INVITE_EXAMPLES: &str = "\
Examples:
  blind-relay admin invite create                              For one person, for a week
  blind-relay admin invite create --uses 30 --days 2           For a room full of people
  blind-relay admin invite list
  blind-relay admin invite revoke 5d1f0c9e-6a55-4f0e-8f6e-0c5c6f0e2b11

The code is typed where the app asks for the code that it was sent.";

pub(super) const DRAIN_EXAMPLES: &str = "\
Examples:
  blind-relay admin drain --wait
  blind-relay admin drain --undo";

pub(super) const LOG_EXAMPLES: &str = "\
Examples:
  blind-relay admin log --last 20
  blind-relay admin log --account 2c6ba2f8-3b6e-4a6e-9a2e-1f5c1b7a9d10
  blind-relay admin log verify
  blind-relay admin log verify --noted 41:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03

Times are in UTC, to the minute. Who did it is a user of the server's machine.";

//! `blind-relay admin`: asks a running server through its admin socket, and tells what came of it.
//!
//! [`client`] speaks to the socket, [`show`] puts answers into words, [`verify`] follows the chain of the log: on this side,
//! so that the server need not be believed about its own record.

mod client;
mod show;
mod verify;

use std::io::{BufRead, Read};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};

use crate::admin::wire::{AccountOut, DrainOut, InviteIn, InviteMade, InvitesOut, LogOut, StatsOut};
use crate::cli::{AccountStep, AdminArgs, AdminStep, InviteStep, LogStep};
use crate::config::Config;
use crate::domain::ServiceId;
use crate::server::say;

use client::{Answer, Client};

/// Does it, and says whether it was done.
pub async fn run(config: &Config, args: AdminArgs) -> anyhow::Result<ExitCode> {
    let console = Console {
        client: Client::new(config.admin_socket.as_deref()),
        json: args.json,
    };
    match args.step {
        AdminStep::Stats => {
            let answer = console.client.get("/stats").await?;
            console.tell(&answer, |stats: StatsOut| show::stats(&stats))
        }
        AdminStep::Account { step } => console.account(step).await,
        AdminStep::Invite { step } => console.invite(step).await,
        AdminStep::Drain { undo, wait } => console.drain(undo, wait, config.drain + DRAIN_GRACE).await,
        AdminStep::Log { step, last, account } => match step {
            Some(LogStep::Verify { noted }) => verify::run(&console.client, noted.as_deref(), console.json).await,
            None => console.log(last, account.as_deref()).await,
        },
    }
}

struct Console {
    client: Client,
    json: bool,
}

impl Console {
    async fn account(&self, step: AccountStep) -> anyhow::Result<ExitCode> {
        match step {
            AccountStep::Show { aci } => {
                let answer = self.client.get(&format!("/accounts/{}", account(&aci)?)).await?;
                self.tell(&answer, |account: AccountOut| show::account(&account))
            }
            AccountStep::Suspend { aci } => {
                let path = format!("/accounts/{}/suspend", account(&aci)?);
                let text = "suspended: within five seconds it is out on every node\n";
                self.done(&self.client.post(&path, None).await?, text)
            }
            AccountStep::Resume { aci } => {
                let path = format!("/accounts/{}/resume", account(&aci)?);
                self.done(&self.client.post(&path, None).await?, "resumed\n")
            }
            AccountStep::Delete { aci, yes } => {
                let aci = account(&aci)?;
                if !yes && !confirmed(&aci)? {
                    bail!("nothing was deleted: what was typed is not the account's id; type it, or give --yes");
                }
                let answer = self.client.delete(&format!("/accounts/{aci}")).await?;
                self.done(&answer, "deleted, with everything that was kept of it\n")
            }
        }
    }

    async fn invite(&self, step: InviteStep) -> anyhow::Result<ExitCode> {
        match step {
            InviteStep::Create {
                uses,
                days,
                digits,
                recover,
            } => {
                let wish = InviteIn {
                    uses,
                    days,
                    digits,
                    recover,
                };
                let body = serde_json::to_vec(&wish)?;
                let answer = self.client.post("/invites", Some(body)).await?;
                self.tell(&answer, |made: InviteMade| show::invite_made(&made))
            }
            InviteStep::List => {
                let answer = self.client.get("/invites").await?;
                self.tell(&answer, |list: InvitesOut| show::invites(&list))
            }
            InviteStep::Revoke { id } => {
                let id = uuid::Uuid::try_parse(&id)
                    .map_err(|_| anyhow!("this is no id of an invite; `blind-relay admin invite list` shows them"))?;
                let answer = self.client.delete(&format!("/invites/{id}")).await?;
                self.done(&answer, "revoked\n")
            }
        }
    }

    async fn drain(&self, undo: bool, wait: bool, patience: Duration) -> anyhow::Result<ExitCode> {
        let answer = if undo {
            self.client.delete("/drain").await?
        } else {
            self.client.put("/drain").await?
        };
        if !wait {
            return self.tell(&answer, |stand: DrainOut| show::drain(stand));
        }
        let until = Instant::now() + patience;
        let mut answer = answer;
        loop {
            let stand: DrainOut = answer.json()?;
            if stand.sockets == 0 || !stand.draining {
                return self.tell(&answer, |stand: DrainOut| show::drain(stand));
            }
            if Instant::now() >= until {
                bail!(
                    "{} sockets are open yet, longer than they should be; stop the server, which closes them",
                    stand.sockets
                );
            }
            if !self.json {
                say(&show::drain(stand));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            answer = self.client.get("/drain").await?;
        }
    }

    async fn log(&self, last: u32, of: Option<&str>) -> anyhow::Result<ExitCode> {
        let of = match of {
            Some(aci) => format!("&account={}", account(aci)?),
            None => String::new(),
        };
        let mut log: LogOut = self.client.get(&format!("/log?limit=0{of}")).await?.json()?;
        // Places have no gaps; but of one account there may be few entries among many.
        let mut after = match log.account {
            Some(_) => 0,
            None => log.head.seq.saturating_sub(i64::from(last)).max(0),
        };
        let last = usize::try_from(last).unwrap_or(usize::MAX);
        loop {
            let page: LogOut = self
                .client
                .get(&format!("/log?after={after}&limit={PAGE}{of}"))
                .await?
                .json()?;
            let Some(newest) = page.entries.last() else { break };
            after = newest.seq;
            log.entries.extend(page.entries);
            let older = log.entries.len().saturating_sub(last);
            log.entries.drain(..older);
        }
        if self.json {
            say(&format!("{}\n", serde_json::to_string(&log)?));
        } else {
            say(&show::log(&log));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Tells what was answered: as it came, or in words.
    fn tell<T: serde::de::DeserializeOwned>(
        &self,
        answer: &Answer,
        words: impl FnOnce(T) -> String,
    ) -> anyhow::Result<ExitCode> {
        let read = answer.json()?;
        say(&if self.json {
            format!("{}\n", answer.text())
        } else {
            words(read)
        });
        Ok(ExitCode::SUCCESS)
    }

    fn done(&self, answer: &Answer, words: &str) -> anyhow::Result<ExitCode> {
        answer.done()?;
        say(if self.json { "{\"done\":true}\n" } else { words });
        Ok(ExitCode::SUCCESS)
    }
}

/// The id of an account in the form in which the server writes it.
fn account(text: &str) -> anyhow::Result<String> {
    match ServiceId::parse(text) {
        Ok(ServiceId::Aci(aci)) => Ok(aci.to_string()),
        Ok(ServiceId::Pni(_)) => Err(anyhow!("this is a PNI; accounts are named by their ACI here")),
        Err(_) => Err(anyhow!(
            "this is no ACI, such as 2c6ba2f8-3b6e-4a6e-9a2e-1f5c1b7a9d10; numbers and user names name nobody here"
        )),
    }
}

/// Whether the id was typed again.
fn confirmed(aci: &str) -> anyhow::Result<bool> {
    eprint!("This deletes the account with everything that is kept of it; there is no way back.\nType its id again: ");
    let mut typed = String::new();
    std::io::stdin().lock().take(MAX_TYPED).read_line(&mut typed)?;
    Ok(typed.trim().eq_ignore_ascii_case(aci))
}

const MAX_TYPED: u64 = 200;
/// Entries of one request.
const PAGE: u32 = 1000;
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// What a socket may take to close, behind the time over which they are closed.
const DRAIN_GRACE: Duration = Duration::from_secs(30);

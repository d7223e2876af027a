//! SMS by the HTTP interface of Twilio, which others offer too: a form to `…/2010-04-01/Accounts/{sid}/Messages.json`.

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::http::{HttpClient, deliver};
use super::{Carrier, Failed, Message};

/// The account that pays.
pub struct TwilioAccount {
    /// Where the interface is, without a path.
    pub base_url: String,
    /// The account's name.
    pub sid: String,
    /// Its password.
    pub token: Zeroizing<String>,
    /// The number that messages come from, or the name of a service, which begins with `MG`.
    pub from: String,
}

/// Sends SMS.
pub struct Twilio {
    client: HttpClient,
    account: TwilioAccount,
    url: String,
}

impl Twilio {
    /// For the given account.
    pub fn new(client: HttpClient, account: TwilioAccount) -> Self {
        let base = account.base_url.trim_end_matches('/');
        let url = format!("{base}/2010-04-01/Accounts/{}/Messages.json", account.sid);
        Self { client, account, url }
    }
}

#[async_trait]
impl Carrier for Twilio {
    fn name(&self) -> &'static str {
        "twilio"
    }

    async fn carry(&self, message: &Message<'_>) -> Result<(), Failed> {
        let from = if self.account.from.starts_with("MG") {
            "MessagingServiceSid"
        } else {
            "From"
        };
        let form = [
            ("To", message.to),
            (from, self.account.from.as_str()),
            ("Body", message.text),
        ];
        let request = self.client.post(&self.url);
        let request = request.basic_auth(&self.account.sid, Some(self.account.token.as_str()));
        deliver(request.form(&form)).await
    }
}

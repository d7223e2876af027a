//! What the server counts, read from its operator's listener.

use anyhow::ensure;

use crate::http::Http;
use crate::server::Server;

/// The counters at one moment.
pub(crate) struct Counters(String);

impl Counters {
    /// Asks the server.
    pub(crate) async fn of(server: &Server) -> anyhow::Result<Self> {
        let mut http = Http::open(&server.admin).await?;
        let (status, body) = http
            .ask_for_body(b"GET /metrics HTTP/1.1\r\nhost: bench\r\naccept: text/plain\r\n\r\n")
            .await?;
        ensure!(status == 200, "metrics were answered with {status}");
        Ok(Self(String::from_utf8(body)?))
    }

    /// The sum of a counter over all labels that contain this text; `None` if there is no such counter yet.
    pub(crate) fn sum(&self, name: &str, label: &str) -> Option<f64> {
        let values = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let is_it = labels.is_empty() || labels.starts_with('{');
            (is_it && labels.contains(label)).then(|| value.parse::<f64>().ok())?
        });
        values.reduce(|one, other| one + other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels_and_not_over_its_namesakes() {
        let counters = Counters(
            "# TYPE ends counter\nends{end=\"written\"} 3\nends{end=\"acknowledged\"} 40\nends_more 5\nplain 7\n"
                .into(),
        );
        assert_eq!(counters.sum("ends", ""), Some(43.0));
        assert_eq!(counters.sum("ends", "end=\"acknowledged\""), Some(40.0));
        assert_eq!(counters.sum("plain", ""), Some(7.0));
        assert_eq!(counters.sum("absent", ""), None);
    }
}

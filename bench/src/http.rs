//! A client's end of HTTP/1.1, as thin as can be: one request at a time, and of the answer the status.

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection that is kept.
pub(crate) struct Http {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    /// Connects.
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    /// Sends a request as it is and waits for the whole answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        Ok(self.ask_for_body(request).await?.0)
    }

    /// The same, with the answer's body.
    pub(crate) async fn ask_for_body(&mut self, request: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if let Some(answer) = Answer::read(&self.buffer)? {
                ensure!(self.buffer.len() <= answer.end, "more came than was asked for");
                if self.buffer.len() == answer.end {
                    return Ok((answer.status, self.buffer.split_off(answer.body)));
                }
            }
            ensure!(self.buffer.len() < LARGEST, "an answer is too large");
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server closed the connection");
        }
    }
}

/// The head of an answer.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    /// Where its body begins.
    body: usize,
    /// Where it ends.
    end: usize,
}

impl Answer {
    /// `None` until the head is whole. Answers without a length are not for this.
    fn read(bytes: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(body) = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4) else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&bytes[..body]).context("a head is text")?;
        let status = head.split(' ').nth(1).context("an answer has a status")?.parse()?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then_some(value.trim())
        });
        let length: usize = length.unwrap_or("0").parse()?;
        Ok(Some(Self {
            status,
            body,
            end: body.checked_add(length).context("a length that fits")?,
        }))
    }
}

const LARGEST: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_length_says() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        let answer = Answer::read(text).unwrap().unwrap();
        assert_eq!((answer.status, answer.end), (200, text.len()));
        assert_eq!(&text[answer.body..], b"{}");
        assert_eq!(Answer::read(&text[..30]).unwrap(), None);
        assert!(Answer::read(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").is_err());
    }
}

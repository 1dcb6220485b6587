//! Parses server-sent events from a stream of bytes. Comments and unknown fields are skipped; a read error
//! ends the stream, and an incomplete last message is dropped.

use futures::{Stream, StreamExt, stream};

/// One message of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Id; empty if the server sent none.
    pub id: String,
    /// Data; several lines are joined by a line break.
    pub data: String,
}

/// Parses the messages of a stream of bytes.
pub fn messages<B: AsRef<[u8]>, E>(bytes: impl Stream<Item = Result<B, E>>) -> impl Stream<Item = Message> {
    let chunks = bytes
        .take_while(|chunk| std::future::ready(chunk.is_ok()))
        .filter_map(|chunk| std::future::ready(chunk.ok()));
    let parsed =
        chunks.scan(Parser::default(), |parser, chunk| std::future::ready(Some(parser.read(chunk.as_ref()))));
    parsed.flat_map(stream::iter)
}

#[derive(Default)]
struct Parser {
    /// The current line, without its end.
    line: Vec<u8>,
    message: Message,
}

impl Parser {
    fn read(&mut self, bytes: &[u8]) -> Vec<Message> {
        let mut complete = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned();
            complete.extend(self.end_line(&line));
        }
        complete
    }

    fn end_line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            return (!message.data.is_empty()).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.message.id),
            "data" if self.message.data.is_empty() => value.clone_into(&mut self.message.data),
            "data" => {
                self.message.data.push('\n');
                self.message.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_independent_of_chunk_boundaries() {
        let text = "retry: 2000\nid: 7\ndata: {\"a\":1}\n\n: still here\n\nid: 8\r\ndata: x\r\ndata: y\r\n\r\nid: 9\ndata: lost";
        let expected = [
            Message { id: "7".into(), data: "{\"a\":1}".into() },
            Message { id: "8".into(), data: "x\ny".into() },
        ];
        for size in [1, 2, 3, 7, text.len()] {
            let chunks = text.as_bytes().chunks(size).map(Ok::<_, ()>);
            let found: Vec<Message> = messages(stream::iter(chunks)).collect().await;
            assert_eq!(found, expected, "in chunks of {size}");
        }
    }

    #[tokio::test]
    async fn a_read_error_ends_the_stream() {
        let chunks = [Ok("data: 1\n\n"), Err("cut"), Ok("data: 2\n\n")];
        assert_eq!(messages(stream::iter(chunks)).count().await, 1);
    }
}

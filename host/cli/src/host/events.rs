//! Server-sent events (WHATWG HTML, section 9.2), from bytes as they arrive.

use std::collections::VecDeque;

use super::Client;
use crate::error::Error;

/// An answer that is events.
#[derive(Debug)]
pub(crate) struct EventStream<'a> {
    client: &'a Client,
    response: reqwest::Response,
    parser: EventParser,
    ready: VecDeque<Event>,
}

impl<'a> EventStream<'a> {
    pub(super) fn new(client: &'a Client, response: reqwest::Response) -> Self {
        Self {
            client,
            response,
            parser: EventParser::default(),
            ready: VecDeque::new(),
        }
    }

    /// The events that come next; none of them where the host only said that it is there. May be dropped and called again.
    /// Nothing at the end of the answer.
    pub(crate) async fn next(&mut self) -> Result<Option<VecDeque<Event>>, Error> {
        if !self.ready.is_empty() {
            return Ok(Some(std::mem::take(&mut self.ready)));
        }
        let chunk = self.response.chunk().await;
        let chunk = chunk.map_err(|source| self.client.unreachable(source))?;
        Ok(chunk.map(|bytes| self.parser.push(&bytes).into()))
    }

    /// One event; the ones that came with it are next.
    pub(crate) async fn first(&mut self) -> Result<Option<Event>, Error> {
        while self.ready.is_empty() {
            match self.next().await? {
                Some(events) => self.ready = events,
                None => return Ok(None),
            }
        }
        Ok(self.ready.pop_front())
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// `message` where the stream did not name it.
    pub(crate) name: String,
    /// The data lines, joined.
    pub(crate) data: String,
}

/// Takes bytes, gives events.
#[derive(Debug, Default)]
struct EventParser {
    buffer: Vec<u8>,
    /// How much of the buffer is known to have no line end.
    scanned: usize,
    name: String,
    data: Option<String>,
}

impl EventParser {
    /// Takes the next bytes and gives the events that are complete.
    fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut start = 0;
        while let Some(at) = self.buffer[self.scanned..]
            .iter()
            .position(|byte| *byte == b'\n')
        {
            let end = self.scanned + at;
            let line = self.buffer[start..end].to_vec();
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            events.extend(self.line(&String::from_utf8_lossy(line)));
            start = end + 1;
            self.scanned = start;
        }
        self.buffer.drain(..start);
        self.scanned = self.buffer.len();
        events
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let name = if name.is_empty() {
                "message".to_owned()
            } else {
                name
            };
            return self.data.take().map(|data| Event { name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            // Comments keep the connection open; ids and retry times are not used.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nevent: state\ndata: {\"a\":1}\n\nevent:end\r\ndata:x\r\ndata: y\r\n\r\ndata\n\nevent: lost\n";

    fn expected() -> Vec<Event> {
        [("state", "{\"a\":1}"), ("end", "x\ny"), ("message", "")]
            .map(|(name, data)| Event {
                name: name.to_owned(),
                data: data.to_owned(),
            })
            .to_vec()
    }

    #[test]
    fn events_are_the_same_however_the_bytes_arrive() {
        for size in 1..=STREAM.len() {
            let mut parser = EventParser::default();
            let events: Vec<_> = STREAM
                .as_bytes()
                .chunks(size)
                .flat_map(|chunk| parser.push(chunk))
                .collect();
            assert_eq!(events, expected(), "in pieces of {size}");
        }
    }

    #[test]
    fn text_that_is_cut_inside_a_character_stays_whole() {
        let mut parser = EventParser::default();
        assert!(parser.push(b"data: \xc3").is_empty());
        assert_eq!(parser.push(b"\xa9\n\n")[0].data, "é");
    }
}

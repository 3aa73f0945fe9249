//! Messages of D-Bus, as far as one call and its answer need them: the D-Bus specification, "Message Protocol".

use super::bus::BusError;

/// Longer answers are not read: what is asked for here has answers of some hundred bytes.
const LONGEST: usize = 64 * 1024;
/// Before the fields: byte order, type, flags, version, length of the body, serial, length of the fields.
pub(super) const START: usize = 16;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
/// Fields by number.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A call of a method.
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    /// The types of the arguments, and the arguments.
    pub(super) signature: &'a str,
    pub(super) body: Writer,
}

impl Call<'_> {
    /// In little endian, whatever the machine's: the receiver turns it around.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let body = &self.body.0;
        let mut message = Writer(vec![b'l', METHOD_CALL, 0, 1]);
        message.number(u32::try_from(body.len()).unwrap_or(u32::MAX));
        message.number(serial);
        message.array(8, |fields| {
            for (field, kind, value) in [
                (PATH, "o", self.path),
                (DESTINATION, "s", self.destination),
                (INTERFACE, "s", self.interface),
                (MEMBER, "s", self.member),
            ] {
                fields.align(8);
                fields.0.push(field);
                fields.variant(kind, |fields| fields.text(value));
            }
            if !self.signature.is_empty() {
                fields.align(8);
                fields.0.push(SIGNATURE);
                fields.variant("g", |fields| fields.types(self.signature));
            }
        });
        message.align(8);
        message.0.extend_from_slice(body);
        message.0
    }
}

/// Writes values one after the other, each at a multiple of its alignment.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(super) fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn long(&mut self, number: u64) {
        self.align(8);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    #[cfg(test)]
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn types(&mut self, signature: &str) {
        self.0
            .push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(signature.as_bytes());
        self.0.push(0);
    }

    /// A value with its type.
    pub(super) fn variant(&mut self, kind: &str, value: impl FnOnce(&mut Self)) {
        self.types(kind);
        value(self);
    }

    /// An array of elements with this alignment. (What is skipped before the first does not count.)
    pub(super) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0);
        let length = self.0.len() - 4;
        self.align(alignment);
        let first = self.0.len();
        elements(self);
        let bytes = u32::try_from(self.0.len() - first).unwrap_or(u32::MAX);
        self.0[length..length + 4].copy_from_slice(&bytes.to_le_bytes());
    }
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// The call with this serial was done.
    Returned(u32),
    /// The call with this serial was refused.
    Refused {
        serial: u32,
        name: String,
        text: String,
    },
    /// A signal, or a call of somebody's.
    Other,
}

/// How many bytes follow the first [`START`] of a message.
pub(super) fn rest(start: &[u8; START]) -> Result<usize, BusError> {
    let mut reader = Reader::new(start)?;
    reader.at = 4;
    let body = reader.number()?;
    reader.at = 12;
    let fields = reader.number()?;
    let rest = fields
        .checked_next_multiple_of(8)
        .and_then(|fields| fields.checked_add(body));
    rest.filter(|rest| *rest <= LONGEST)
        .ok_or(BusError::Unintelligible("it is too long"))
}

/// Reads a whole message.
pub(super) fn decode(message: &[u8]) -> Result<Incoming, BusError> {
    let mut reader = Reader::new(message)?;
    let kind = message.get(1).copied();
    reader.at = 12;
    let end = START + reader.number()?;
    let (mut serial, mut name) = (0, String::new());
    while reader.at < end {
        reader.align(8);
        let field = reader.byte()?;
        match (field, reader.types()?) {
            (REPLY_SERIAL, "u") => serial = u32::try_from(reader.number()?).unwrap_or_default(),
            (ERROR_NAME, "s") => name = reader.text()?.to_owned(),
            (_, "u") => drop(reader.number()?),
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.types()?),
            _ => return Err(BusError::Unintelligible("a field has an unknown type")),
        }
    }
    Ok(match kind {
        Some(METHOD_RETURN) => Incoming::Returned(serial),
        Some(ERROR) => {
            reader.align(8);
            // What an error has to say is its first argument, where it has one.
            let text = reader.text().unwrap_or_default().to_owned();
            Incoming::Refused { serial, name, text }
        }
        _ => Incoming::Other,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    number: fn([u8; 4]) -> u32,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, BusError> {
        let number = match (bytes.first(), bytes.get(3)) {
            (Some(b'l'), Some(1)) => u32::from_le_bytes,
            (Some(b'B'), Some(1)) => u32::from_be_bytes,
            _ => return Err(BusError::Unintelligible("it is no message of version 1")),
        };
        Ok(Self {
            bytes,
            at: 0,
            number,
        })
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], BusError> {
        let end = self.at.saturating_add(length);
        let taken = self
            .bytes
            .get(self.at..end)
            .ok_or(BusError::Unintelligible("it ends too early"))?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, BusError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<usize, BusError> {
        self.align(4);
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        usize::try_from((self.number)(bytes))
            .map_err(|_| BusError::Unintelligible("it is too long"))
    }

    fn text(&mut self) -> Result<&'a str, BusError> {
        let length = self.number()?;
        self.text_of(length)
    }

    fn types(&mut self) -> Result<&'a str, BusError> {
        let length = self.byte()?.into();
        self.text_of(length)
    }

    /// With the NUL that follows it.
    fn text_of(&mut self, length: usize) -> Result<&'a str, BusError> {
        let text = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| BusError::Unintelligible("a text is no UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// An answer as a bus writes it, in both byte orders.
    fn answer(kind: u8, big: bool, text: Option<&str>) -> Vec<u8> {
        let number = |value: u32| {
            if big {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            }
        };
        let mut body = Vec::new();
        if let Some(text) = text {
            body.extend(number(text.len().try_into().unwrap()));
            body.extend(text.as_bytes());
            body.push(0);
        }
        let mut fields = vec![5, 1, b'u', 0];
        fields.extend(number(7));
        if kind == ERROR {
            fields.extend([4, 1, b's', 0]);
            fields.extend(number(3));
            fields.extend(b"a.b\0");
            fields.resize(fields.len().next_multiple_of(8), 0);
        }
        fields.extend([8, 1, b'g', 0, 1, b's', 0]);
        let mut message = vec![if big { b'B' } else { b'l' }, kind, 1, 1];
        message.extend(number(body.len().try_into().unwrap()));
        message.extend(number(99));
        message.extend(number(fields.len().try_into().unwrap()));
        message.extend(fields);
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend(body);
        message
    }

    #[test]
    fn answers_are_read_in_both_byte_orders_and_say_what_they_answer() {
        for big in [false, true] {
            let returned = answer(METHOD_RETURN, big, Some("/job/1"));
            let start = returned[..START].try_into().unwrap();
            assert_eq!(rest(start).unwrap(), returned.len() - START);
            assert_eq!(decode(&returned).unwrap(), Incoming::Returned(7));
            let refused = Incoming::Refused {
                serial: 7,
                name: "a.b".into(),
                text: "no".into(),
            };
            assert_eq!(decode(&answer(ERROR, big, Some("no"))).unwrap(), refused);
            assert_eq!(decode(&answer(4, big, None)).unwrap(), Incoming::Other);
        }
    }

    #[test]
    fn what_is_cut_off_too_long_or_no_message_is_an_error_and_no_panic() {
        let whole = answer(ERROR, false, Some("no"));
        // What an error says may be missing, the fields not.
        let fields = START + usize::from(whole[12]);
        for length in 0..fields {
            assert!(decode(&whole[..length]).is_err(), "{length}");
        }
        let mut long: [u8; START] = whole[..START].try_into().unwrap();
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(rest(&long).is_err());
        long[4..8].copy_from_slice(&[0; 4]);
        long[12..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(rest(&long).is_err());
        for index in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[index] = byte;
                let _no_panic = decode(&changed);
            }
        }
        assert!(decode(b"HTTP/1.1 400 Bad Request").is_err());
    }
}

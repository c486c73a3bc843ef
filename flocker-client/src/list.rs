//! Decodes a list while it arrives, one element at a time, so that its text is never in memory as a whole.

use std::borrow::Cow;

use reqwest::Response;
use serde::de::IgnoredAny;

use crate::{
    Error,
    answer::{Answer, Body, Head, limit_of, next_chunk},
    entry::{Entry, Listed, push},
    error::{ApiCall, DecodeError, Target},
};

/// A list that has arrived in full, with the tag of the configuration.
#[derive(Debug)]
pub(crate) struct List<T> {
    pub(crate) listed: Listed<T>,
    pub(crate) tag: Option<String>,
}

impl<T: Entry> List<T> {
    /// Decodes a response to its end; every status but those of success becomes an error.
    pub(crate) async fn read(target: &Target, call: ApiCall, mut response: Response) -> Result<Self, Error> {
        let mut list = Receiving::new(call, Head::of(&response));
        while let Some(chunk) = next_chunk(target, &list.call, &mut response).await? {
            if !list.push(&chunk) {
                break;
            }
        }
        list.finish()
    }
}

/// A list that is arriving.
pub(crate) struct Receiving<T> {
    call: ApiCall,
    head: Head,
    content: Content<T>,
    limit: usize,
    received: usize,
    /// Whether more than `limit` bytes have arrived.
    is_cut: bool,
}

/// What has arrived.
enum Content<T> {
    /// Nothing but white space.
    Nothing,
    /// A list from its beginning, or why it cannot be decoded.
    List(Result<Elements<T>, DecodeError>),
    /// Something else, which becomes an error.
    Other(Vec<u8>),
}

impl<T: Entry> Receiving<T> {
    pub(crate) fn new(call: ApiCall, head: Head) -> Self {
        Self {
            limit: limit_of(head.status),
            call,
            head,
            content: Content::Nothing,
            received: 0,
            is_cut: false,
        }
    }

    /// Takes the next bytes; returns whether any that follow matter.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> bool {
        if chunk.len() > self.limit - self.received {
            self.is_cut = true;
            return false;
        }
        self.received += chunk.len();
        if matches!(self.content, Content::Nothing) {
            self.content = match chunk.trim_ascii_start() {
                [] => return true,
                [b'[', ..] if self.head.is_json_of_success(&self.call) => {
                    Content::List(Ok(Elements::default()))
                }
                _ => Content::Other(Vec::new()),
            };
        }
        match &mut self.content {
            Content::Nothing => true,
            Content::Other(body) => {
                body.extend_from_slice(chunk);
                true
            }
            Content::List(list) => {
                if let Ok(elements) = list
                    && let Err(error) = elements.push(chunk)
                {
                    *list = Err(error);
                }
                list.is_ok()
            }
        }
    }

    /// Returns the list, now that nothing follows.
    pub(crate) fn finish(mut self) -> Result<List<T>, Error> {
        let elements = match self.content {
            Content::Nothing => Err(Vec::new()),
            Content::Other(body) => Err(body),
            Content::List(list) => Ok(list),
        };
        match elements {
            Ok(list) => {
                let limit = self.limit;
                let list = if self.is_cut {
                    Err(DecodeError::TooLong { limit })
                } else {
                    list.and_then(Elements::finish)
                };
                match list {
                    Ok(listed) => Ok(List {
                        listed,
                        tag: self.head.tag.take(),
                    }),
                    Err(source) => Err(Error::Decode {
                        call: Box::new(self.call),
                        source,
                    }),
                }
            }
            Err(body) => {
                let body = if self.is_cut {
                    Body::Cut(body)
                } else {
                    Body::Whole(body)
                };
                Err(Answer::from_parts(self.call, self.head, body)?.refuse_list())
            }
        }
    }
}

/// The elements of a list so far, and the text of the one that has begun.
struct Elements<T> {
    listed: Listed<T>,
    /// How many elements have ended.
    count: usize,
    begun: Vec<u8>,
    place: Place,
    /// How many arrays and objects of the element are open.
    depth: usize,
    string: Inside,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Before,
    Within,
    After,
}

/// Whether the next byte is part of a string, and of an escape in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    String,
    Escape,
}

impl<T> Default for Elements<T> {
    fn default() -> Self {
        Self {
            listed: Listed::default(),
            count: 0,
            begun: Vec::new(),
            place: Place::Before,
            depth: 0,
            string: Inside::Nothing,
        }
    }
}

impl<T: Entry> Elements<T> {
    fn push(&mut self, mut chunk: &[u8]) -> Result<(), DecodeError> {
        loop {
            if self.begun.is_empty() {
                chunk = chunk.trim_ascii_start();
            }
            let Some((first, rest)) = chunk.split_first() else {
                return Ok(());
            };
            match self.place {
                Place::Before => {
                    // The caller has seen that the list begins like this.
                    debug_assert_eq!(*first, b'[');
                    self.place = Place::Within;
                    chunk = rest;
                }
                Place::Within => match self.end_of_element(chunk) {
                    None => {
                        self.begun.extend_from_slice(chunk);
                        return Ok(());
                    }
                    Some(end) => {
                        let (text, rest) = chunk.split_at(end);
                        let is_last = rest.first() == Some(&b']');
                        self.decode(text, is_last)?;
                        if is_last {
                            self.place = Place::After;
                        }
                        chunk = rest.get(1..).unwrap_or_default();
                    }
                },
                Place::After => return Err(self.malformed(&[b"null ", chunk].concat())),
            }
        }
    }

    /// Returns the position of the comma or bracket that follows the element, if it is there.
    fn end_of_element(&mut self, chunk: &[u8]) -> Option<usize> {
        for (position, byte) in chunk.iter().enumerate() {
            match (self.string, byte) {
                (Inside::String, b'\\') => self.string = Inside::Escape,
                (Inside::String, b'"') => self.string = Inside::Nothing,
                (Inside::Escape, _) | (Inside::Nothing, b'"') => self.string = Inside::String,
                (Inside::Nothing, b'[' | b'{') => self.depth += 1,
                (Inside::Nothing, b',' | b']') if self.depth == 0 => return Some(position),
                (Inside::Nothing, b']' | b'}') => self.depth = self.depth.saturating_sub(1),
                (Inside::String | Inside::Nothing, _) => {}
            }
        }
        None
    }

    /// Decodes the element whose last bytes are `text`.
    fn decode(&mut self, text: &[u8], is_last: bool) -> Result<(), DecodeError> {
        let is_empty_list =
            is_last && self.count == 0 && self.begun.is_empty() && text.trim_ascii().is_empty();
        if is_empty_list {
            return Ok(());
        }
        let begun = std::mem::take(&mut self.begun);
        let text = if begun.is_empty() {
            Cow::Borrowed(text)
        } else {
            Cow::Owned([&begun, text].concat())
        };
        let pushed = push(&mut self.listed, &text);
        pushed.map_err(|error| DecodeError::at(&self.path(), &text, error))?;
        self.count += 1;
        Ok(())
    }

    /// Returns the error of the parser for the text of an element that is not JSON.
    fn malformed(&self, text: &[u8]) -> DecodeError {
        match serde_json::from_slice::<IgnoredAny>(text) {
            Ok(_) => DecodeError::Unended,
            Err(error) => DecodeError::at(&self.path(), text, error),
        }
    }

    /// Returns the path of the element that follows.
    fn path(&self) -> String {
        format!("[{}]", self.count)
    }

    fn finish(self) -> Result<Listed<T>, DecodeError> {
        match self.place {
            Place::After => Ok(self.listed),
            Place::Before | Place::Within => Err(self.malformed(&self.begun)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{entry::Element, fields::Fields};

    /// An entry of any content.
    #[derive(Clone, Debug, PartialEq)]
    struct Any(Option<String>);

    impl Entry for Any {
        const KEYS: &[&str] = &["a"];

        fn of(fields: &Fields<'_>, _: &mut Vec<usize>) -> Element<Self> {
            Element::Entry(Self(fields.text(0).map(ToOwned::to_owned)))
        }
    }

    fn decode(text: &str, piece: usize) -> Result<Listed<Any>, DecodeError> {
        let mut elements = Elements::default();
        for piece in text.as_bytes().chunks(piece) {
            elements.push(piece)?;
        }
        elements.finish()
    }

    #[test]
    fn a_list_is_decoded_the_same_wherever_it_is_cut() {
        for text in [
            "[]",
            " [ \n ] ",
            "[1]",
            r#"[ {"a": "],[}\"{"} , [[], "\\", {}], null,-1.5 ]"#,
            r#"["\\\"", "\u005d"]"#,
        ] {
            let elements: Vec<Value> = serde_json::from_str(text).unwrap();
            let whole = decode(text, text.len()).unwrap();
            assert_eq!(
                whole.len() + whole.unreadable.without_id,
                elements.len(),
                "{text}"
            );
            assert_eq!(
                whole.len(),
                elements.iter().filter(|element| element.is_object()).count()
            );
            for piece in 1..=text.len() {
                assert_eq!(decode(text, piece).unwrap(), whole, "{text} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_list_is_refused_wherever_it_is_cut() {
        for text in [
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,]",
            "[1 2]",
            "[1]]",
            "[1],",
            "[1] x",
            "[}",
            "[{]",
            "[\"]",
            "[{\"a\":1]",
        ] {
            for piece in 1..=text.len() {
                decode(text, piece).expect_err(text);
            }
        }
    }
}

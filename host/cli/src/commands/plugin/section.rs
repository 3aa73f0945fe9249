//! The manifest inside a component, read without running or compiling anything.
//!
//! A component (like a module) is a header of 8 bytes and sections: an id byte, a length, the content. A custom section
//! has id 0 and its content starts with a name (WebAssembly component model, Binary.md).

const COMPONENT: [u8; 8] = [0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00];

/// The content of the one custom section of this name, on the component's outermost level.
pub(super) fn custom<'a>(component: &'a [u8], wanted: &str) -> Result<&'a [u8], SectionError> {
    let mut rest = component
        .strip_prefix(&COMPONENT)
        .ok_or(SectionError::NotAComponent)?;
    let mut found = None;
    while let Some((id, after)) = rest.split_first() {
        rest = after;
        let section = take(&mut rest).ok_or(SectionError::Truncated)?;
        if *id == 0 {
            let mut content = section;
            let name = take(&mut content).ok_or(SectionError::Truncated)?;
            if name == wanted.as_bytes() && found.replace(content).is_some() {
                return Err(SectionError::Twice);
            }
        }
    }
    found.ok_or(SectionError::Missing)
}

/// Bytes with their length (LEB128, 32 bits) before them.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut length = 0_u64;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
            *bytes = rest;
            return Some(taken);
        }
    }
    None
}

/// The file has no manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SectionError {
    /// Another kind of file.
    #[error(
        "not a WebAssembly component; build it with sluice plugin build, or wrap the module with wit-component"
    )]
    NotAComponent,
    /// Ends inside a section.
    #[error("damaged: it ends inside a section")]
    Truncated,
    /// No manifest.
    #[error("without a manifest (custom section sluice:plugin); embed its plugin.toml")]
    Missing,
    /// Two manifests.
    #[error("with two manifests; embed one")]
    Twice,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(sections: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = COMPONENT.to_vec();
        for (id, content) in sections {
            bytes.push(*id);
            // the two-byte form of the length
            bytes.extend([
                (content.len() & 0x7f) as u8 | 0x80,
                (content.len() >> 7) as u8,
            ]);
            bytes.extend_from_slice(content);
        }
        bytes
    }

    #[test]
    fn the_section_is_found_by_its_name() {
        let bytes = component(&[
            (1, &[7; 300]),
            (0, b"\x01xabc"),
            (0, b"\x01yid = 1"),
            (7, b""),
        ]);
        assert_eq!(custom(&bytes, "y"), Ok(b"id = 1".as_slice()));
        assert_eq!(custom(&bytes, "z"), Err(SectionError::Missing));
        assert_eq!(
            custom(&component(&[(0, b"\x01y"), (0, b"\x01y")]), "y"),
            Err(SectionError::Twice)
        );
        assert_eq!(
            custom(b"\0asm\x01\0\0\0", "y"),
            Err(SectionError::NotAComponent)
        );
        for end in COMPONENT.len()..bytes.len() - 3 {
            assert_ne!(
                custom(&bytes[..end], "y"),
                Ok(b"id = 1".as_slice()),
                "cut at {end}"
            );
        }
    }
}

//! The text of a file: UTF-8 or UTF-16 with a byte order mark, line ends as `\n`. Any other encoding is named
//! with its line, because a guess could store other characters than the author wrote.

/// Decodes a file; on failure its line and what to do.
pub fn decode(bytes: &[u8]) -> Result<String, (usize, String)> {
    let text = match bytes {
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        _ => utf8(bytes)?,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n");
    match text.find('\0') {
        Some(at) => {
            Err((line(text.as_bytes(), at), "contains a NUL character: save the file as UTF-8".to_owned()))
        }
        None => Ok(text),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, (usize, String)> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let byte = bytes.get(at).copied().unwrap_or_default();
        let why =
            format!("the byte 0x{byte:02X} is not UTF-8: convert the file (`iconv -f LATIN1 -t UTF-8`)");
        (line(bytes, at), why)
    })?;
    Ok(text.to_owned())
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, (usize, String)> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| unit(*pair));
    let mut text = String::new();
    for found in char::decode_utf16(units) {
        let found = found.map_err(|_| not_utf16(&text))?;
        text.push(found);
    }
    if rest.is_empty() { Ok(text) } else { Err(not_utf16(&text)) }
}

fn not_utf16(before: &str) -> (usize, String) {
    (line(before.as_bytes(), before.len()), "is not valid UTF-16: save the file as UTF-8".to_owned())
}

fn line(bytes: &[u8], at: usize) -> usize {
    1 + bytes.iter().take(at).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_decoded_or_named_with_their_line() {
        let text = "SELECT 'é';\r\nSELECT 2;\n";
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let expected = "SELECT 'é';\nSELECT 2;\n";
        assert_eq!(decode(text.as_bytes()).unwrap(), expected);
        assert_eq!(decode(format!("\u{feff}{text}").as_bytes()).unwrap(), expected);
        assert_eq!(decode(&[&[0xFF, 0xFE][..], &le].concat()).unwrap(), expected);
        assert_eq!(decode(&[&[0xFE, 0xFF][..], &be].concat()).unwrap(), expected);
        let (line, why) = decode(b"SELECT 1;\nSELECT '\xE9';").unwrap_err();
        assert!(line == 2 && why.contains("0xE9") && why.contains("iconv"), "{why}");
        let (line, why) = decode(&le).unwrap_err();
        assert!(line == 1 && why.contains("0xE9"), "UTF-16 without its mark: {why}");
        let plain: Vec<u8> = "SELECT 1;".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(decode(&plain).unwrap_err().1.contains("NUL"));
        assert_eq!(decode(b"SELECT 1;\n\nSELECT '\0';").unwrap_err().0, 3);
        assert_eq!(decode(&[0xFF, 0xFE, 0x0A, 0x00, 0x00, 0xD8, 0x41]).unwrap_err().0, 2);
    }
}

//! Just enough DER to write what an authority would sign, right or wrong.

pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..128 => vec![tag, length as u8],
        128..256 => vec![tag, 0x81, length as u8],
        256..65_536 => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        _ => vec![tag, 0x83, (length >> 16) as u8, (length >> 8) as u8, length as u8],
    };
    [&head[..], content].concat()
}

pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

/// `2.5.29.n`.
pub fn extension(number: u8, value: &[u8]) -> Vec<u8> {
    sequence(&[&[6, 3, 0x55, 0x1d, number], &element(4, value)])
}

/// The content of the first element, and the bytes of the whole of it.
pub fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, length) = match bytes.get(1)? {
        length @ 0..=127 => (2, usize::from(*length)),
        0x81 => (3, usize::from(*bytes.get(2)?)),
        0x82 => (4, usize::from(*bytes.get(2)?) << 8 | usize::from(*bytes.get(3)?)),
        _ => return None,
    };
    Some((bytes.get(head..head + length)?, bytes.get(..head + length)?))
}

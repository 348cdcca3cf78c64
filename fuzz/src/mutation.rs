//! Breaks inputs at random, always in the same way from the same seed.

/// Sebastiano Vigna's SplitMix64: good enough to choose where to break something.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`; 0 where that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.number() % bound as u64) as usize }
    }
}

/// What parsers trip over.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"=",
    b"\"",
    b"\\",
    b"%",
    b"%2e",
    b"%2F",
    b"..",
    b"//",
    b"@",
    b"[",
    b"]",
    b"\xff",
    b"\xc3\xa9",
    b"\xf0\x9f\x98\x80",
    b"0",
    b"-1",
    b"ffffffffffffffff",
    b"18446744073709551615",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"HTTP/1.0",
    b"0\r\n\r\n",
    b"\x30\x80",
    b"\x30\x84\xff\xff\xff\xff",
    b"\x02\x01\x80",
    b"\x05\x00",
    b"\xa0\x03",
    b"\x01\x01\xff",
    b"&a ",
    b"*a",
    b"- ",
    b": ",
    b"{",
    b"}",
    b"<<: ",
    b"!!binary ",
    b"-----BEGIN X509 CRL-----\n",
    b"-----END X509 CRL-----\n",
    b"#",
    b"CN=",
    b"+",
];

/// No input grows longer.
const LONGEST: usize = 64 * 1024;

/// One of `inputs`, broken in one to eight ways.
pub fn mutate(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = inputs.get(random.below(inputs.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        let most = 1 + random.below(64);
        let end = at + random.below((input.len() - at).min(most) + 1);
        match random.below(10) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.number() as u8,
            2 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => drop(input.drain(at..end)),
            4 => {
                let copy = input[at..end].to_vec();
                let to = random.below(input.len() + 1);
                input.splice(to..to, copy);
            }
            5 => drop(input.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
            6 => drop(input.splice(at..end, TOKENS[random.below(TOKENS.len())].iter().copied())),
            7 => {
                let other = &inputs[random.below(inputs.len())];
                let from = random.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
            8 => input.truncate(at),
            _ => {
                let byte = random.number() as u8;
                input.splice(at..at, std::iter::repeat_n(byte, 1 + random.below(40)));
            }
        }
        input.truncate(LONGEST);
    }
    input
}

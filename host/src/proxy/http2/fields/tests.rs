//! Blocks by hand. The samples of RFC 7541 are in its appendix C.

use super::*;

/// Codes that the samples need (appendix B).
fn code(symbol: u8) -> (u32, u64) {
    match symbol {
        b'/' => (6, 0x18),
        b'a' => (5, 0x3),
        b'?' => (10, 0x3fc),
        b'#' => (12, 0xffa),
        b'>' => (12, 0xffb),
        b':' => (7, 0x5c),
        b'p' => (6, 0x2b),
        b't' => (5, 0x9),
        b'h' => (6, 0x27),
        b'\\' => (19, 0x7fff0),
        b'\n' => (30, 0x3fff_fffc),
        other => panic!("no code for {other}"),
    }
}

/// A text in Huffman's code, with its length.
fn packed(text: &str) -> Vec<u8> {
    let bits: String = text
        .bytes()
        .map(code)
        .map(|(length, bits)| format!("{bits:0width$b}", width = length as usize))
        .collect();
    let bytes: Vec<u8> = bits
        .as_bytes()
        .chunks(8)
        .map(|bits| {
            let bits = std::str::from_utf8(bits).unwrap();
            u8::from_str_radix(&format!("{bits:1<8}"), 2).unwrap()
        })
        .collect();
    [&[0x80 | bytes.len() as u8], &bytes[..]].concat()
}

fn plain(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn headers(flags: u8, length: usize) -> Frame {
    Frame {
        length: length as u64,
        kind: kind::HEADERS,
        flags,
        stream: 1,
    }
}

fn continuation(flags: u8, length: usize) -> Frame {
    Frame {
        kind: kind::CONTINUATION,
        ..headers(flags, length)
    }
}

/// What becomes of a block, which is the same however it is cut.
fn read(block: &[u8]) -> Vec<u8> {
    let read_in = |piece: usize| {
        let mut fields = Fields::default();
        fields.begin(&headers(0, block.len()), Block::Head).unwrap();
        let mut block = block.to_vec();
        block
            .chunks_mut(piece)
            .for_each(|piece| fields.piece(piece).unwrap());
        assert_eq!(fields.step, Step::Field, "the block is whole");
        block
    };
    let whole = read_in(usize::MAX);
    for piece in 1..10 {
        assert_eq!(read_in(piece), whole, "{piece}");
    }
    whole
}

#[test]
fn codes_fill_their_tree() {
    assert_eq!(SYMBOLS.iter().sum::<u64>(), 257, "all bytes and the end");
    assert_eq!(LIMITS[30], 1 << 30);
    for symbol in *b"/a?#>:pth\\\n" {
        let (count, bits) = code(symbol);
        assert_eq!(Code { bits, count }.symbol(), Some((count, bits)), "{symbol}");
    }
    // C.4.1: "www.example.com"
    let mut text: [u8; 12] = [
        0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
    ];
    let (mut code, before) = (Code::default(), text);
    let mut lengths = Vec::new();
    for byte in &mut text {
        code.bits = code.bits << 8 | u64::from(*byte);
        code.count += 8;
        while let Some((length, _)) = code.symbol() {
            lengths.push(length);
            code.count -= length;
            code.bits &= (1 << code.count) - 1;
        }
    }
    assert_eq!(lengths, [7, 7, 7, 6, 5, 7, 5, 6, 6, 6, 5, 6, 5, 5, 6]);
    assert_eq!((text, code.bits), (before, 0b1111_1111 >> (8 - code.count)));
}

#[test]
fn a_fragment_of_a_path_becomes_what_no_path_has() {
    for before in ["", "/", "/a", "/aa", "/aaa", "/?", "/aaaaaaaaaaaaa?/", "/\\\n"] {
        for after in ["", "a", "#", "/a#a#"] {
            let path = format!("{before}#{after}");
            let turned = path.replace('#', ">");
            for entry in [4, 0x14, 0x44, 5, 0x45] {
                assert_eq!(
                    read(&[&[entry], &plain(&path)[..]].concat()),
                    [&[entry], &plain(&turned)[..]].concat()
                );
                assert_eq!(
                    read(&[&[entry], &packed(&path)[..]].concat()),
                    [&[entry], &packed(&turned)[..]].concat(),
                    "{path:?}"
                );
            }
            for name in [plain(":path"), packed(":path")] {
                let block = |path: &str| [&[0], &name[..], &packed(path)].concat();
                assert_eq!(read(&block(&path)), block(&turned));
            }
        }
    }
}

#[test]
fn nothing_else_is_changed() {
    let referer = [&[0x0f, 0x24], &plain("/a#a")[..]].concat();
    for block in [
        referer,
        [&[1], &plain("a#")[..]].concat(),
        [&[0x41], &packed("#a#")[..]].concat(),
        [&[0], &plain(":pat")[..], &plain("#")].concat(),
        [&[0], &plain("a:path")[..], &plain("#")].concat(),
        [&[0x40], &plain("a")[..], &plain("#")].concat(),
        [&[0], &plain("")[..], &plain("")].concat(),
        [&[0x3f, 0xe1, 0x1f], &[0x82, 0x84][..]].concat(),
        [&[4], &packed("/a?aaaa>")[..]].concat(),
    ] {
        assert_eq!(read(&block), block);
    }
}

#[test]
fn a_name_is_known_by_its_entry_too() {
    // A path and three others become entries, so the path is the fourth.
    let other = [&[0x40], &plain("a")[..], &plain("#")].concat();
    let path = [&[0x40], &plain(":path")[..], &plain("/")].concat();
    let before = [&path[..], &other, &other, &other].concat();
    for (entry, is_path) in [(62, false), (64, false), (65, true), (66, false), (5000, false)] {
        let number = [0x0f, (entry - 15) as u8 | 0x80, ((entry - 15) >> 7) as u8];
        let field = |path| [&number[..], &plain(path)].concat();
        let turned = if is_path { "/>" } else { "/#" };
        let block = [&before[..], &field("/#")].concat();
        assert_eq!(read(&block), [&before[..], &field(turned)].concat(), "{entry}");
    }
}

#[test]
fn a_block_is_between_its_lead_and_its_padding() {
    let path = [&[4], &plain("/#")[..]].concat();
    let turned = [&[4], &plain("/>")[..]].concat();
    for (flags, lead, padding) in [
        (PADDED, &[3][..], &[4, 1, b'#'][..]),
        (PRIORITY, &[4, 1, b'#', 0, 0], &[]),
        (PADDED | PRIORITY, &[2, 4, 1, b'#', 0, 0], &[4, b'#']),
    ] {
        for piece in [1, 2, 100] {
            let mut payload = [lead, &path, padding].concat();
            let mut fields = Fields::default();
            fields.begin(&headers(flags, payload.len()), Block::Head).unwrap();
            payload
                .chunks_mut(piece)
                .for_each(|piece| fields.piece(piece).unwrap());
            assert_eq!(payload, [lead, &turned, padding].concat(), "{flags} {piece}");
        }
    }
}

#[test]
fn a_block_goes_on_in_the_next_frame() {
    let block = [&[4], &packed("/aaa#")[..]].concat();
    let turned = [&[4], &packed("/aaa>")[..]].concat();
    for cut in 0..block.len() {
        let mut fields = Fields::default();
        let mut payload = block.clone();
        let (head, more) = payload.split_at_mut(cut);
        fields.begin(&headers(0, head.len()), Block::Head).unwrap();
        fields.piece(head).unwrap();
        fields
            .begin(&continuation(END_HEADERS, more.len()), Block::Trailers)
            .unwrap();
        fields.piece(more).unwrap();
        assert_eq!(payload, turned, "{cut}");
    }
}

#[test]
fn a_block_ends_with_a_field() {
    let entries = [0x82, 0x84];
    let block = [&entries[..], &[0x40], &packed(":path"), &plain("/a")].concat();
    let number = [0x7f, 0x80, 0x80, 0x01];
    for (block, ends) in [(&block[..], vec![0, 1, 2, block.len()]), (&number, vec![0])] {
        for cut in 0..=block.len() {
            let mut fields = Fields::default();
            let mut whole = block[..cut].to_vec();
            let judged = fields
                .begin(&headers(END_HEADERS, cut), Block::Head)
                .and_then(|()| fields.piece(&mut whole));
            let expected = if ends.contains(&cut) {
                Ok(())
            } else {
                Err(Breach::Compression)
            };
            assert_eq!(judged, expected, "{block:x?} {cut}");
            // The same in two frames, the second of which may be empty.
            let (mut fields, mut whole) = (Fields::default(), block[..cut].to_vec());
            fields.begin(&headers(0, cut), Block::Head).unwrap();
            fields.piece(&mut whole).unwrap();
            let judged = fields.begin(&continuation(END_HEADERS, 0), Block::Head);
            assert_eq!(judged, expected, "{block:x?} {cut}");
        }
    }
}

#[test]
fn what_no_block_has_is_found_at_once() {
    for block in [&[0x80][..], &[0x7f, 0x80, 0x80, 0x80, 0x80]] {
        let mut fields = Fields::default();
        fields.begin(&headers(0, 100), Block::Head).unwrap();
        assert_eq!(fields.piece(&mut block.to_vec()), Err(Breach::Compression));
    }
    // 28 bits are allowed.
    let mut fields = Fields::default();
    fields.begin(&headers(0, 100), Block::Head).unwrap();
    fields.piece(&mut [0x3f, 0xff, 0xff, 0xff, 0x7f]).unwrap();
    assert_eq!(fields.step, Step::Field);
}

/// Whether trailers have what only a head has, after a head, and however they are cut.
fn is_misplaced(head: &[u8], trailers: &[u8]) -> bool {
    let read_in = |piece: usize| {
        let mut fields = Fields::default();
        for (block, bytes) in [(Block::Head, head), (Block::Trailers, trailers)] {
            fields.begin(&headers(END_HEADERS, bytes.len()), block).unwrap();
            let mut bytes = bytes.to_vec();
            for piece in bytes.chunks_mut(piece) {
                fields.piece(piece).unwrap();
            }
            assert!(
                block == Block::Trailers || !fields.is_misplaced(),
                "a head has them"
            );
        }
        fields.is_misplaced()
    };
    let whole = read_in(usize::MAX);
    assert!((1..10).all(|piece| read_in(piece) == whole), "{trailers:x?}");
    whole
}

#[test]
fn trailers_have_no_field_of_a_head() {
    let head = [
        &[0x82, 0x84, 0x40][..],
        &plain(":path"),
        &plain("/"),
        &[0x40],
        &packed("a"),
        &packed("a"),
    ];
    let head = head.concat();
    let status = [&[0x08], &plain("200")[..]].concat();
    let (path, hath) = (
        [&[0][..], &packed(":path"), &plain("/")].concat(),
        [&[0x10][..], &plain(":hath"), &plain("")].concat(),
    );
    let later = [&[0x40][..], &plain("a"), &plain("b"), &[0x81]].concat();
    // The head's second entry is the older one.
    for bad in [&[0x81][..], &[0x8e], &[0xbf], &status, &path, &hath, &later] {
        assert!(is_misplaced(&head, bad), "{bad:x?}");
    }
    let plainly = [&[0][..], &plain("a:path"), &plain(":path")].concat();
    let packedly = [&[0x40][..], &packed("a"), &packed(":path")].concat();
    for good in [
        &[][..],
        &[0x8f],
        &[0xbe],
        &[0xbd],
        &plainly,
        &packedly,
        &[0x3f, 0xe1, 0x1f],
    ] {
        assert!(!is_misplaced(&head, good), "{good:x?}");
    }
}

#[test]
fn bytes_at_random_are_survived() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let mut fields = Fields::default();
        for _ in 0..4 {
            let mut bytes: Vec<u8> = (0..random.usize(..60)).map(|_| random.u8(..)).collect();
            let frame = headers(random.u8(..), random.usize(..80));
            // What is wrong with it is said, and no more.
            let _ = fields.begin(&frame, Block::Trailers);
            let _ = fields.piece(&mut bytes);
        }
    }
}

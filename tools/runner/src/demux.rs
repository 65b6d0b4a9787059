//! Separates the report's text from the defmt frames that share its serial line.
//!
//! A frame is `00 FF`, rzCOBS bytes, `00`. Text holds neither byte and a frame holds no 00, so
//! every 00 is a safe place to start over: after a lost byte at most the damaged frame and the
//! text up to the next 00 or line end are wrong. A panic writes a lone 00 first and so ends
//! whatever it interrupted.

/// One piece of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A line of text without its line end; bytes that are no UTF-8 are replaced.
    Line(String),
    /// The rzCOBS bytes of one frame.
    Frame(Vec<u8>),
    /// A frame that outgrew [`FRAME_LIMIT`]: its closing byte is lost.
    Overrun,
}

/// Opens and closes a frame.
const DELIMITER: u8 = 0x00;
/// Follows the opening delimiter; text never holds it.
const FRAME_MARK: u8 = 0xFF;
/// Longest frame in bytes. A longer one has lost its end and would swallow the report.
pub(crate) const FRAME_LIMIT: usize = 4096;
/// Longest line in bytes; a longer one is cut so that a firmware writing no line end is shown.
const LINE_LIMIT: usize = 4096;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// A delimiter was read outside a frame.
    Delimiter,
    Frame,
}

/// The separator; feed it bytes as they come.
#[derive(Debug, Default)]
pub(crate) struct Demux {
    state: State,
    buffer: Vec<u8>,
}

impl Demux {
    /// Takes `bytes` and appends the pieces they complete to `out`.
    pub(crate) fn feed(&mut self, bytes: &[u8], out: &mut Vec<Piece>) {
        for &byte in bytes {
            self.byte(byte, out);
        }
    }

    /// Ends the stream: an unfinished line is a line, an unfinished frame is lost.
    pub(crate) fn finish(&mut self, out: &mut Vec<Piece>) {
        match self.state {
            State::Frame => self.buffer.clear(),
            State::Text | State::Delimiter => self.end_partial_line(out),
        }
        self.state = State::Text;
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<Piece>) {
        match (self.state, byte) {
            (State::Frame, DELIMITER) => {
                if !self.buffer.is_empty() {
                    out.push(Piece::Frame(std::mem::take(&mut self.buffer)));
                }
                self.state = State::Delimiter;
            }
            (State::Frame, _) => {
                self.buffer.push(byte);
                if self.buffer.len() > FRAME_LIMIT {
                    self.buffer.clear();
                    out.push(Piece::Overrun);
                    self.state = State::Text;
                }
            }
            (State::Text | State::Delimiter, DELIMITER) => {
                self.end_partial_line(out);
                self.state = State::Delimiter;
            }
            // Without a delimiter before it, the delimiter is what got lost.
            (State::Text | State::Delimiter, FRAME_MARK) => {
                self.end_partial_line(out);
                self.state = State::Frame;
            }
            (State::Text | State::Delimiter, b'\n') => {
                self.end_line(out);
                self.state = State::Text;
            }
            (State::Text | State::Delimiter, _) => {
                self.buffer.push(byte);
                if self.buffer.len() >= LINE_LIMIT {
                    self.end_line(out);
                }
                self.state = State::Text;
            }
        }
    }

    fn end_partial_line(&mut self, out: &mut Vec<Piece>) {
        if !self.buffer.is_empty() {
            self.end_line(out);
        }
    }

    fn end_line(&mut self, out: &mut Vec<Piece>) {
        let line = String::from_utf8_lossy(&self.buffer);
        out.push(Piece::Line(line.trim_end_matches('\r').into()));
        self.buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(bytes: &[u8]) -> Vec<Piece> {
        let (mut demux, mut out) = (Demux::default(), vec![]);
        demux.feed(bytes, &mut out);
        demux.finish(&mut out);
        out
    }

    fn line(text: &str) -> Piece {
        Piece::Line(text.into())
    }

    fn encode(pieces: &[Piece]) -> Vec<u8> {
        let mut bytes = vec![];
        for piece in pieces {
            match piece {
                Piece::Line(text) => bytes.extend([text.as_bytes(), b"\r\n"].concat()),
                Piece::Frame(frame) => {
                    bytes.extend([&[0, 0xFF], frame.as_slice(), &[0]].concat());
                }
                Piece::Overrun => {}
            }
        }
        bytes
    }

    #[test]
    fn text_and_frames_come_apart() {
        let bytes = b"one\r\n\x00\xFF\x01\xFFab\x00two\n\x00\xFF\x02\x00\x00\xFF\x03\x00three";
        assert_eq!(
            pieces(bytes),
            [
                line("one"),
                Piece::Frame(vec![1, 0xFF, b'a', b'b']),
                line("two"),
                Piece::Frame(vec![2]),
                Piece::Frame(vec![3]),
                line("three"),
            ]
        );
    }

    #[test]
    fn a_panic_ends_the_frame_and_the_line_it_interrupts() {
        assert_eq!(
            pieces(b"\x00\xFF\x05\x06\x00Bail out! x\n"),
            [Piece::Frame(vec![5, 6]), line("Bail out! x")]
        );
        assert_eq!(
            pieces(b"ok 1 ha\x00Bail out! x\n"),
            [line("ok 1 ha"), line("Bail out! x")]
        );
    }

    #[test]
    fn a_frame_in_the_middle_of_a_line_splits_it() {
        assert_eq!(
            pieces(b"a\x00\xFF\x07\x00b\n"),
            [line("a"), Piece::Frame(vec![7]), line("b")]
        );
    }

    #[test]
    fn either_lost_delimiter_is_survived() {
        let after = [line("z")];
        assert_eq!(pieces(b"\xFF\x01\x00z\n")[1..], after);
        assert_eq!(pieces(b"\x00\xFF\x01\x00\xFF\x02\x00z\n")[2..], after);
    }

    #[test]
    fn a_frame_without_end_does_not_swallow_the_report() {
        let mut bytes = vec![0, 0xFF];
        bytes.extend(vec![b'x'; FRAME_LIMIT + 1]);
        bytes.extend(b"\nok\n");
        assert_eq!(pieces(&bytes), [Piece::Overrun, line(""), line("ok")]);
    }

    #[test]
    fn empty_lines_stay_and_bad_utf8_is_replaced() {
        assert_eq!(pieces(b"\n\x80\n"), [line(""), line("\u{FFFD}")]);
    }

    fn stream() -> impl Strategy<Value = Vec<Piece>> {
        let text = "[ -~]{1,40}".prop_map(Piece::Line);
        let frame = proptest::collection::vec(1_u8..=255, 1..40).prop_map(Piece::Frame);
        proptest::collection::vec(prop_oneof![text, frame], 0..40)
    }

    proptest! {
        #[test]
        fn any_interleaving_comes_back(expected in stream(), cut in 1_usize..17) {
            let (mut demux, mut out) = (Demux::default(), vec![]);
            for chunk in encode(&expected).chunks(cut) {
                demux.feed(chunk, &mut out);
            }
            demux.finish(&mut out);
            prop_assert_eq!(out, expected);
        }

        /// Whatever is lost before it, what follows the next frame's end is read rightly.
        #[test]
        fn damage_ends_at_the_next_delimiter(
            head in stream(), lost in any::<prop::sample::Index>(), tail in stream(),
        ) {
            let mut damaged = encode(&head);
            if !damaged.is_empty() {
                damaged.remove(lost.index(damaged.len()));
            }
            // Two delimiters end any state, as a panic does.
            damaged.extend([0, 0]);
            damaged.extend(encode(&tail));
            let out = pieces(&damaged);
            prop_assert!(out.ends_with(&tail), "{out:?} does not end with {tail:?}");
        }

        #[test]
        fn no_input_is_fatal(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            pieces(&bytes);
        }
    }
}

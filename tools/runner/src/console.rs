//! Follows a serial line: separates, shows, keeps and judges what comes.

use crate::capture::Capture;
use crate::demux::{Demux, Piece};
use crate::ktap::{Judge, Verdict};
use crate::payload::PayloadCheck;
use crate::trace::Trace;
use anyhow::Result;

/// Whether the lines are shown as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// On standard output.
    Terminal,
    /// Not at all; the capture has them.
    Nothing,
}

/// One serial line being read.
#[derive(Debug)]
pub(crate) struct Console {
    show: Show,
    demux: Demux,
    trace: Trace,
    judge: Judge,
    payload: Option<PayloadCheck>,
    capture: Capture,
    last_line: String,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Report {
    /// What the KTAP report amounts to.
    pub(crate) verdict: Verdict,
    /// The hashes seen, if a payload was handed over.
    pub(crate) payload: Option<PayloadCheck>,
    /// The last line that was not empty.
    pub(crate) last_line: String,
}

impl Console {
    /// A console whose frames `trace` reads and whose pieces `capture` keeps.
    pub(crate) fn new(
        show: Show,
        trace: Trace,
        payload: Option<PayloadCheck>,
        capture: Capture,
    ) -> Self {
        Self {
            show,
            demux: Demux::default(),
            trace,
            judge: Judge::default(),
            payload,
            capture,
            last_line: String::new(),
        }
    }

    /// Takes bytes as they came.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.capture.raw(bytes)?;
        let mut pieces = Vec::new();
        self.demux.feed(bytes, &mut pieces);
        self.take(pieces)
    }

    /// Whether the report is over: its total was read, or the firmware bailed out.
    pub(crate) fn report_ended(&self) -> bool {
        self.judge.ended()
    }

    /// Ends the line.
    pub(crate) fn finish(mut self) -> Result<Report> {
        let mut pieces = Vec::new();
        self.demux.finish(&mut pieces);
        self.take(pieces)?;
        Ok(Report {
            verdict: self.judge.finish(),
            payload: self.payload,
            last_line: self.last_line,
        })
    }

    fn take(&mut self, pieces: Vec<Piece>) -> Result<()> {
        for piece in pieces {
            match piece {
                Piece::Line(line) => self.text(&line)?,
                Piece::Frame(frame) => {
                    let line = self.trace.decode(&frame);
                    self.traced(&line)?;
                }
                Piece::Overrun => self.traced("a trace frame without an end")?,
            }
        }
        Ok(())
    }

    fn text(&mut self, line: &str) -> Result<()> {
        if self.show == Show::Terminal {
            println!("{line}");
        }
        self.capture.report(line)?;
        self.judge.line(line);
        if let Some(payload) = &mut self.payload {
            payload.line(line);
        }
        if !line.trim().is_empty() {
            self.last_line = line.trim().into();
        }
        Ok(())
    }

    fn traced(&mut self, line: &str) -> Result<()> {
        if self.show == Show::Terminal {
            println!("~ {line}");
        }
        self.capture.trace(line)
    }
}

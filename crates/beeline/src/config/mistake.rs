//! A mistake in a file, and how it is told.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// A file as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl File {
    /// The line of a byte, from 1.
    pub(super) fn line(&self, byte: usize) -> usize {
        1 + self.text.as_bytes()[..byte]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
    }
}

/// Something in a file that is not understood. Its display shows file, line, column and the line.
#[derive(Debug)]
pub struct Mistake {
    pub(super) file: Arc<File>,
    /// Bytes of the file's text.
    pub(super) span: Range<usize>,
    /// What is wrong.
    pub(super) what: String,
    /// What belongs there.
    pub(super) expected: String,
    /// What to do.
    pub(super) hint: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = AnnotationKind::Primary
            .span(self.span.clone())
            .label(&self.expected);
        let snippet = Snippet::source(&self.file.text)
            .path(self.file.path.to_string_lossy())
            .annotation(place);
        let title = Level::ERROR.no_name().primary_title(&self.what);
        let hint = self.hint.as_ref().map(|hint| Level::HELP.message(hint));
        let told = title.element(snippet).elements(hint);
        f.write_str(&Renderer::plain().render(&[told]))
    }
}

//! A text file and the places in it.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in a file, for people and for editors that jump to it: `daemon.toml:12:5`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The line, counted from 1; 0 stands for the file as a whole.
    pub line: usize,
    /// The column in characters, counted from 1; 0 where the line is.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 { write!(f, ":{}:{}", self.line, self.column) } else { Ok(()) }
    }
}

/// A text and where its lines start.
pub(super) struct Text {
    pub(super) file: Arc<Path>,
    pub(super) content: String,
    line_starts: Vec<usize>,
}

/// Why a file is not a text we can work with.
pub(super) enum Unreadable {
    /// As a whole.
    Whole(String),
    /// From this place on.
    At(Place, String),
}

impl Text {
    pub(super) fn new(file: &Path, content: String) -> Self {
        let after_ends = content.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(after_ends).collect();
        Self { file: file.into(), content, line_starts }
    }

    /// Reads a regular file of UTF-8 text.
    pub(super) fn read(file: &Path, bytes_max: usize) -> Result<Self, Unreadable> {
        let whole = |error: std::io::Error| Unreadable::Whole(format!("it cannot be read: {error}"));
        // Before it is opened: to open a pipe would wait for a writer.
        if !fs::metadata(file).map_err(whole)?.is_file() {
            return Err(Unreadable::Whole("it is no regular file".into()));
        }
        let mut bytes = Vec::new();
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        File::open(file).map_err(whole)?.take(limit).read_to_end(&mut bytes).map_err(whole)?;
        if bytes.len() > bytes_max {
            return Err(Unreadable::Whole(format!("it has more than {bytes_max} bytes")));
        }
        String::from_utf8(bytes).map(|content| Self::new(file, content)).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let text = Self::new(file, String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned());
            Unreadable::At(text.place(good), "it must be UTF-8 text".into())
        })
    }

    /// The place of a byte. Beyond the end it is the end.
    pub(super) fn place(&self, offset: usize) -> Place {
        let mut offset = offset.min(self.content.len());
        while !self.content.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let column = self.content[self.line_starts[line - 1]..offset].chars().count() + 1;
        Place { file: self.file.clone(), line, column }
    }

    /// The file as a whole.
    pub(super) fn whole(file: &Path) -> Place {
        Place { file: file.into(), line: 0, column: 0 }
    }

    /// The place of a line and column, which are cut to those there are.
    pub(super) fn place_at(&self, line: usize, column: usize) -> Place {
        let line = line.clamp(1, self.line_starts.len());
        let start = self.line_starts[line - 1];
        let end = self.line_starts.get(line).copied().unwrap_or(self.content.len());
        let columns = self.content[start..end].trim_end_matches(['\r', '\n']).chars().count();
        Place { file: self.file.clone(), line, column: column.clamp(1, columns + 1) }
    }
}

/// A path below the folder of the config file, as it is opened and shown.
pub(super) fn folder_of(file: &Path) -> PathBuf {
    file.parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

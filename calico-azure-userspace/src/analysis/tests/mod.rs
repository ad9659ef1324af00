//! Tests of whole analyses.

mod oracle;

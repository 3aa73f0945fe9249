//! A finding in one line.

use sluice_plugin_sdk::prelude::*;

/// `<rule>: <message> (<subject>[, line <n>])`.
pub(crate) fn describe(finding: &Finding, bundle: &Bundle) -> String {
    let Finding {
        rule,
        message,
        subject,
        ..
    } = finding;
    match line(finding, bundle) {
        Some(line) => format!("{rule}: {message} ({subject}, line {line})"),
        None => format!("{rule}: {message} ({subject})"),
    }
}

/// The line where the finding begins, from 1. Spans come from another plugin: one that points outside of the text has
/// no line. Texts of a single line need none.
fn line(finding: &Finding, bundle: &Bundle) -> Option<usize> {
    let start = usize::try_from(finding.primary?.start).ok()?;
    let part = bundle
        .texts()
        .find(|part| part.subject == finding.subject)?;
    if !part.text.contains('\n') && finding.subject != "script" {
        return None;
    }
    let before = part.text.as_bytes().get(..start)?;
    Some(1 + before.iter().filter(|&&byte| byte == b'\n').count())
}

//! Writes Prometheus' text format for what the exporter cannot hold: series that have to go away, and fractions of
//! counters.

use std::fmt::Write as _;

use super::catalogue::Family;

/// Text in the exposition format, family by family.
#[derive(Debug)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Goes on after what is written already.
    pub(super) fn after(text: String) -> Self {
        Self { text }
    }

    /// One family with all of its samples; label values in the order of the family's labels. Nothing without samples.
    pub(super) fn family<'a, const N: usize>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = ([&'a str; N], f64)>,
    ) {
        debug_assert_eq!(family.labels.len(), N, "{}", family.name);
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // A String takes every write.
        let _ = write!(self.text, "# HELP {0} {1}\n# TYPE {0} {2}\n", family.name, family.help, family.kind.name());
        for (values, number) in samples {
            self.text.push_str(family.name);
            let mut before = '{';
            for (label, value) in family.labels.iter().zip(values) {
                let _ = write!(self.text, "{before}{}=\"", label.name);
                escape_into(&mut self.text, value);
                self.text.push('"');
                before = ',';
            }
            if N > 0 {
                self.text.push('}');
            }
            let _ = writeln!(self.text, " {number}");
        }
        self.text.push('\n');
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

fn escape_into(out: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            letter => out.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::{ASSIGNED, LAG, PROCESS_MEMORY};
    use super::*;

    #[test]
    fn families_are_written_with_escaped_labels() {
        let mut out = Exposition::after(String::new());
        out.family(&LAG, [(["g\"", "t\\", "0\n"], 7.0)]);
        out.family(&PROCESS_MEMORY, [([], 1.5)]);
        out.family::<1>(&ASSIGNED, []);
        let text = out.finish();
        assert!(text.contains("# TYPE recordkeeper_lag gauge\n"));
        assert!(text.contains("recordkeeper_lag{group=\"g\\\"\",topic=\"t\\\\\",partition=\"0\\n\"} 7\n"));
        assert!(text.contains("\nprocess_resident_memory_bytes 1.5\n"));
        assert!(!text.contains("assigned"));
    }
}

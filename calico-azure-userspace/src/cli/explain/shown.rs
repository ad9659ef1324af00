//! An explanation for people: the decision first, then why.

use std::io::{self, Write};

use super::report::{Decision, End, Report, StageReport, Traced};

pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let Report {
        from,
        to,
        decision,
        engines,
        not_asked,
        stages,
        pending,
        notes,
        ..
    } = report;
    let (from, to) = (end(from), end(to));
    writeln!(
        out,
        "{}  {from} → {to}  {}",
        decision.verdict.to_uppercase(),
        packet(report)
    )?;
    why(decision, out)?;
    for stage in stages {
        write_stage(stage, out)?;
    }
    if !notes.is_empty() {
        writeln!(out)?;
    }
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    // A live answer is the kernel's, and there is nobody to compare it with.
    if notes.is_empty() {
        let said: Vec<String> = engines
            .iter()
            .map(|(name, said)| format!("{name} {}", said.verdict))
            .collect();
        let agree = if engines.len() == 1 {
            ""
        } else if report.agree {
            ": they agree"
        } else {
            ": THEY DISAGREE"
        };
        writeln!(out, "\nengines: {}{agree}", said.join(", "))?;
    }
    for (name, why) in not_asked {
        writeln!(out, "engine {name} was not asked: {why}")?;
    }
    if let Some(pending) = pending {
        let what = if pending.verdict == decision.verdict {
            "still "
        } else {
            ""
        };
        writeln!(
            out,
            "\nif staged policies were enforced: {what}{}",
            pending.verdict.to_uppercase()
        )?;
        why(pending, out)?;
    }
    out.flush()
}

fn end(End { name, address }: &End) -> String {
    match name {
        Some(name) => format!("{name} ({address})"),
        None => address.to_string(),
    }
}

fn packet(report: &Report) -> String {
    let protocol = report.protocol.to_lowercase();
    match (report.icmp, report.dport) {
        (Some([kind, code]), _) => format!("{protocol} type {kind} code {code}"),
        (None, Some(dport)) => match report.sport {
            Some(sport) => format!("{protocol} {sport} → {dport}"),
            None => format!("{protocol} {dport}"),
        },
        (None, None) if protocol.parse::<u8>().is_ok() => format!("protocol {protocol}"),
        (None, None) => protocol,
    }
}

fn why(decision: &Decision, out: &mut dyn Write) -> io::Result<()> {
    let at = decision.stage.as_deref().zip(decision.at.as_deref());
    let place = at.map_or_else(String::new, |(stage, at)| format!("{stage} of {at}: "));
    let what = decision.rule.as_deref().unwrap_or(match decision.reason {
        "no-policy" => "neither end has any policy",
        "within-pod" => "a pod may always talk to itself",
        "within-host" => "a host may always talk to itself",
        other => other,
    });
    writeln!(out, "  {place}{what}")?;
    if let Some(written) = &decision.written {
        let place = format!("{}:{}", written.file.display(), written.line);
        writeln!(out, "  {place}: {}", written.text)?;
    }
    Ok(())
}

fn write_stage(stage: &StageReport, out: &mut dyn Write) -> io::Result<()> {
    let StageReport {
        stage: name,
        at,
        verdict,
        rule,
        disagree,
        trace,
        tables,
        reason,
    } = stage;
    writeln!(out, "\n{name} of {at}: {verdict}")?;
    let width = trace.iter().map(rule_width).max().unwrap_or_default();
    for step in trace {
        write_step(step, width, out)?;
    }
    if let Some(tables) = tables {
        let (set, class, table) = (tables.policy_set, tables.peer_class, tables.port_table);
        writeln!(out, "  policy set {set}, peer class {class}, port table {table}")?;
    }
    if trace.is_empty() {
        writeln!(out, "  {}", rule.as_deref().unwrap_or(reason))?;
    }
    for (engine, said) in disagree {
        writeln!(out, "  engine {engine} says: {said}")?;
    }
    Ok(())
}

fn rule_width(step: &Traced) -> usize {
    match step {
        Traced::Rule { rule, .. } => rule.len(),
        _ => 0,
    }
}

fn write_step(step: &Traced, width: usize, out: &mut dyn Write) -> io::Result<()> {
    match step {
        Traced::Stage { name } => writeln!(out, "  {name}"),
        Traced::Tier { tier } => writeln!(out, "  tier {tier}"),
        Traced::Policy { policy } => writeln!(out, "    {policy}"),
        Traced::Rule {
            rule,
            action,
            matched: true,
            ..
        } => {
            writeln!(out, "      {rule:<width$}  {action:<5}  matches")
        }
        Traced::Rule {
            rule, action, failed, ..
        } => {
            writeln!(
                out,
                "      {rule:<width$}  {action:<5}  no: {}",
                failed.join(", ")
            )
        }
        Traced::Default { action, .. } => writeln!(out, "    nothing decided: the tier's default, {action}"),
        Traced::Profile { profile, action } => writeln!(out, "  profile {profile}: {action}"),
    }
}

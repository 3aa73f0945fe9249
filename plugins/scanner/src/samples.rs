//! Texts that `configure` scans once, so that the automata that regular expressions build on first use are in the
//! snapshot.

use sluice_plugin_sdk::prelude::*;

use crate::comments::Language;
use crate::engine::Engine;

/// What ordinary scripts look like.
const ORDINARY: &str = r#"#!/bin/sh
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export DEBIAN_FRONTEND=noninteractive
log() { printf '%s\n' "$*" >&2; }
if [ "$(id -u)" -ne 0 ]; then log "must be root"; exit 1; fi
apt-get update && apt-get install -y --no-install-recommends curl jq >/dev/null
curl -fsSL -o "$tmp/package.deb" "https://example.com/package.deb" || exit 1
sha256sum -c "$tmp/sum" && dpkg -i "$tmp/package.deb"
for service in nginx ssh; do systemctl is-active --quiet "$service" || systemctl restart "$service"; done
find /var/log -name '*.gz' -mtime +30 -print | while read -r file; do rm -f "$file"; done
df -h / | awk 'NR==2 {print $5}'; tar -czf /backup/etc.tar.gz /etc; cat /etc/os-release | grep '^ID='
import os, sys, json, subprocess
result = subprocess.run(["uptime"], capture_output=True, text=True)
Get-Service | Where-Object { $_.Status -eq 'Running' } | Select-Object -First 5
Set-ItemProperty -Path "HKLM:\SOFTWARE\Example" -Name "Value" -Value 1
"#;

/// Scans the sample, so that the automata that ordinary scripts need are built. Words of every rule would build them
/// all, which makes the snapshot twice as large and ordinary scans no quicker.
pub(crate) fn warm_up(engine: &Engine) {
    let mut findings = Vec::new();
    // the second pass finds what the first one left half built
    for _ in 0..2 {
        let part = TextPart {
            subject: "script".to_owned(),
            text: ORDINARY,
        };
        engine.scan(&part, Language::Shell, &mut findings);
        findings.clear();
    }
}

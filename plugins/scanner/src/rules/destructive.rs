//! What cannot be undone.

use sluice_plugin_sdk::types::{Confidence, Severity};

use super::{Rule, line, together};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "delete-everything",
        severity: Severity::Critical,
        confidence: Confidence::High,
        tags: &["attack.T1485", "attack.T1070.004"],
        name: "Delete everything",
        message: "deletes the root of the file system or a system directory",
        remediation: "Name the exact directory; guard variables with ${NAME:?}.",
        patterns: &[
            line(
                &["rm "],
                r#"\brm\s+(?:-[\w-]+\s+)*(?:-\w*r\w*|--recursive|--no-preserve-root)\s+(?:-[\w-]+\s+)*(?:\S+\s+)*?["']?/(?:\*|\.\*?)?["']?(?:[\s;&|)]|$)"#,
            ),
            line(
                &["rm "],
                r#"\brm\s+(?:-[\w-]+\s+)*(?:-\w*r\w*|--recursive)\s+(?:-[\w-]+\s+)*["']?/(?:etc|usr|bin|sbin|lib|lib64|boot|var|home|root|opt|dev|sys|proc|Users|System|Library|Applications)(?:/\*?)?["']?(?:[\s;&|)]|$)"#,
            ),
            line(&["no-preserve-root"], r"\brm\b[^\n]*--no-preserve-root"),
            line(
                &["rm "],
                r#"\brm\s+(?:-[\w-]+\s+)*-\w*r\w*\s+(?:-[\w-]+\s+)*["']?(?:~|\$\{?HOME\}?)["']?(?:/\*?)?["']?(?:[\s;&|)]|$)"#,
            ),
            line(
                &["-delete", "-exec"],
                r"\bfind\s+/(?:etc|usr|bin|boot|var|home|root)?\s+(?:-(?:type|name|mindepth|maxdepth|xdev|mount)\s*\S*\s+)*(?:-delete|-exec\s+(?:rm|shred|unlink)\b)",
            ),
            line(
                &["rmtree", "remove_dir", "rm_rf", "rmsync", "rm_r"],
                r#"(?:shutil\.rmtree|FileUtils\.rm_rf?|remove_tree|rmtree|fs\.rm(?:dir)?Sync)\s*\(?\s*["']/(?:etc|usr|bin|boot|var|home|root)?/?["']"#,
            ),
            line(
                &["remove-item", "rmdir", "rd ", "del "],
                r#"(?:remove-item|\brm|\bri|\bdel|\berase|\brmdir|\brd)\b[^\n]*["'\s](?:[a-z]:\\|\$env:systemdrive\\?|%systemdrive%\\?)(?:\*|windows\\?\*?|users\\?\*?)?["']?(?:\s+[-/]|\s*$|\s*;)"#,
            ),
        ],
    },
    Rule {
        id: "overwrite-disk",
        severity: Severity::Critical,
        confidence: Confidence::High,
        tags: &["attack.T1561", "attack.T1485"],
        name: "Overwrite a disk",
        message: "overwrites or formats a disk",
        remediation: "Make sure of the device by its serial number, and do it by hand.",
        patterns: &[
            line(
                &["/dev/", "of="],
                r#"\bdd\s[^\n]*\bof=["']?/dev/(?:[shvx]+d[a-z]|nvme|mmcblk|r?disk\d|mapper/|md\d|ada|da\d)"#,
            ),
            line(
                &["/dev/"],
                r"(?:^|[^\w])(?:cat|echo|printf|yes)?[^\n|]*>\s*/dev/(?:[shv]d[a-z]|xvd[a-z]|nvme\d|mmcblk\d|r?disk\d)",
            ),
            line(
                &[
                    "shred",
                    "wipefs",
                    "blkdiscard",
                    "hdparm",
                    "sgdisk",
                    "wipe",
                    "nwipe",
                    "cryptsetup",
                    "nvme",
                ],
                r"\b(?:shred|wipefs|blkdiscard|wipe|nwipe|scrub)\s+(?:-\S+\s+)*/dev/|\bhdparm\b[^\n]*--security-erase|\bsgdisk\s+(?:-Z|--zap)|\bcryptsetup\s+(?:luks)?erase|\bnvme\s+format",
            ),
            line(
                &[
                    "format-volume",
                    "clear-disk",
                    "initialize-disk",
                    "remove-partition",
                    "physicaldrive",
                ],
                r"\b(?:format-volume|clear-disk|remove-partition)\b|>\s*\\\\\.\\physicaldrive|FileStream[^\n]*physicaldrive[^\n]*write|\bformat(?:\.com)?\s+[a-z]:\s*/",
            ),
            together(
                &["diskpart"],
                &["clean", "format"],
                r"\bclean(?:\s+all)?\b|\bformat\s+fs=",
            ),
        ],
    },
    Rule {
        id: "format-file-system",
        severity: Severity::Medium,
        confidence: Confidence::Medium,
        tags: &["attack.T1561"],
        name: "Format a file system",
        message: "makes a new file system on a device",
        remediation: "Check that the device is empty first.",
        patterns: &[line(
            &["mkfs", "mkswap", "newfs"],
            r"(?:^\s*|[;&|]\s*|sudo\s+)(?:mkfs(?:\.\w+)?|newfs)\s[^\n]*/dev/",
        )],
    },
    Rule {
        id: "fork-bomb",
        severity: Severity::Critical,
        confidence: Confidence::High,
        tags: &["attack.T1499"],
        name: "Fork bomb",
        message: "starts processes without end",
        remediation: "Remove it.",
        patterns: &[
            line(
                &["()", "function"],
                r":\s*\(\s*\)\s*\{\s*:\s*\|\s*:|\b(\w{1,8})\s*\(\)\s*\{\s*\.?/?\w{1,8}\s*\|\s*\w{1,8}\s*&\s*\}\s*;",
            ),
            line(
                &["fork"],
                r"\bfork\s+while\s+(?:fork|1|true)|while\s*(?:\(?\s*(?:1|true)\s*\)?)\s*[:{]?\s*(?:do\s+)?(?:os\.)?fork\b|loop\s*\{\s*fork",
            ),
        ],
    },
    Rule {
        id: "delete-backups",
        severity: Severity::High,
        confidence: Confidence::High,
        tags: &["attack.T1490"],
        name: "Delete backups",
        message: "removes snapshots, backups or the way to recover",
        remediation: "Let the backup system expire what it holds.",
        patterns: &[
            line(
                &[
                    "vssadmin",
                    "shadowcopy",
                    "shadowcopies",
                    "wbadmin",
                    "bcdedit",
                    "reagentc",
                    "computerrestore",
                    "tmutil",
                    "diskshadow",
                ],
                r"\bvssadmin(?:\.exe)?\b[^\n]*(?:delete|resize)\s|wmic\b[^\n]*shadowcopy[^\n]*delete|Win32_Shadowcopy[^\n]*(?:delete|remove)|wbadmin\b[^\n]*delete|bcdedit\b[^\n]*(?:recoveryenabled\s+no|ignoreallfailures|safeboot)|reagentc\b[^\n]*/disable|Disable-ComputerRestore|\btmutil\s+(?:delete|disable)|diskshadow\b[^\n]*delete",
            ),
            together(
                &["win32_shadowcopy"],
                &[".delete(", "remove-wmiobject", "remove-ciminstance"],
                r"\.delete\(|remove-(?:wmiobject|ciminstance)",
            ),
            line(
                &[
                    "delete-snapshot",
                    "snapshot delete",
                    "delete-db-snapshot",
                    "delete-recovery-point",
                    "snapshots delete",
                ],
                r"\baws\b[^\n]*delete-(?:snapshot|db-snapshot|recovery-point|backup-vault)|\baz\s+(?:snapshot|backup)\b[^\n]*delete|gcloud\b[^\n]*snapshots\s+delete",
            ),
            line(
                &["systemrestore", "disablesr", "backup"],
                r"DisableSR\b|DisableConfig[^\n]*SystemRestore|SystemRestore[^\n]*DisableConfig|Remove-Item[^\n]*\*?\.(?:bak|vhdx?|wbcat|bkf)\b|del\s[^\n]*\*\.(?:bak|vhd|wbcat|bkf)\b",
            ),
        ],
    },
    Rule {
        id: "overwrite-files",
        severity: Severity::Medium,
        confidence: Confidence::Medium,
        tags: &["attack.T1485", "attack.T1070.004"],
        name: "Destroy files",
        message: "overwrites files so that they cannot be recovered",
        remediation: "Say which files, and keep a copy.",
        patterns: &[
            line(
                &["shred", "srm ", "sdelete", "cipher", "wipe"],
                r#"(?:^|[\s;&|(])(?:shred|srm|sdelete(?:64)?(?:\.exe)?)\s+[-/\w"'$~.]|\bcipher(?:\.exe)?\s+/w"#,
            ),
            line(
                &["dd "],
                r#"\bdd\s[^\n]*if=/dev/(?:zero|u?random)[^\n]*\bof=["']?(?:/(?:etc|usr|var|home|root|bin|boot)/|\$HOME|~)|\bdd\s[^\n]*\bof=["']?(?:/(?:etc|usr|var|home|root|bin|boot)/)[^\n]*if=/dev/(?:zero|u?random)"#,
            ),
            line(
                &["truncate"],
                r#"\btruncate\s+(?:-\S+\s+)*(?:-s\s*0|--size[= ]0)\s+["']?/(?:etc|usr|home|root|boot)/"#,
            ),
            line(
                &[
                    "delete-bucket",
                    "s3 rm",
                    "s3 rb",
                    "delete-db",
                    "delete-table",
                    "terminate-instances",
                    "group delete",
                ],
                r"\baws\s+s3\s+(?:rb\s[^\n]*--force|rm\s[^\n]*--recursive)|\baws\b[^\n]*(?:delete-(?:bucket|db-instance|table|stack)|terminate-instances)|\baz\s+(?:group|vm|storage account)\s+delete|gcloud\b[^\n]*projects\s+delete",
            ),
            line(
                &["drop database", "drop table", "truncate table"],
                r"\b(?:mysql|psql|mariadb|sqlite3|mongo\w*|sqlcmd)\b[^\n]*(?:drop\s+(?:database|table|schema)|truncate\s+table|dropDatabase)",
            ),
        ],
    },
    Rule {
        id: "bulk-encryption",
        severity: Severity::Medium,
        confidence: Confidence::Medium,
        tags: &["attack.T1486", "attack.T1560.001"],
        name: "Encryption with a password in the script",
        message: "encrypts files with a password",
        remediation: "Use the backup tool, and keep keys in secrets.",
        patterns: &[
            line(
                &["openssl"],
                r"\bopenssl\s+(?:enc|smime|aes-?\d+\S*|rsautl|pkeyutl|cms)\b[^\n]*(?:-e\b|-in\b|-encrypt\b|-out\b|-k\b|-pass\b)",
            ),
            line(
                &["gpg"],
                r"\bgpg2?\b[^\n]*(?:--passphrase|--symmetric|\s-c\b|--encrypt)",
            ),
            line(
                &[
                    "7z",
                    "zip",
                    "rar",
                    "ccrypt",
                    "ccencrypt",
                    "bitlocker",
                    "manage-bde",
                    "diskcryptor",
                ],
                r#"\b7z[ar]?(?:\.exe)?["']?\s+a\b[^\n]*\s-p|\bzip\b[^\n]*\s(?:-\w*[eP]\b|--password|--encrypt)|\brar(?:\.exe)?["']?\s+a\b[^\n]*\s-h?p|\bcc(?:rypt|encrypt)\b|Enable-BitLocker|manage-bde\b[^\n]*-on|diskcryptor"#,
            ),
            line(
                &[
                    "fernet",
                    "aes.new",
                    "createencryptor",
                    "cryptostream",
                    "protectedfile",
                    "encrypt()",
                    "aescryptoserviceprovider",
                    "rijndael",
                ],
                r"Fernet\s*\(|AES\.new\s*\(|CreateEncryptor|CryptoStream|\.Encrypt\(\)|AesCryptoServiceProvider|RijndaelManaged|AesManaged",
            ),
            line(
                &["readme", "decrypt", "ransom", "bitcoin"],
                r"(?:your|all)\s+(?:\w+\s+){0,4}files\s+(?:\w+\s+){0,3}encrypted|ransom\s*note|HOW[_ ]TO[_ ](?:DECRYPT|RECOVER)|(?:decrypt|recover)[\w .-]*readme",
            ),
        ],
    },
    Rule {
        id: "shutdown",
        severity: Severity::Medium,
        confidence: Confidence::Medium,
        tags: &["attack.T1529"],
        name: "Shutdown or restart",
        message: "turns the machine off or restarts it",
        remediation: "Schedule restarts as a job of their own, in a window.",
        patterns: &[line(
            &[
                "shutdown",
                "poweroff",
                "reboot",
                "halt",
                "restart-computer",
                "stop-computer",
                "init 0",
                "init 6",
                "sysrq",
                "telinit",
            ],
            r#"(?:^\s*|[;&|(]\s*|sudo\s+|then\s+|do\s+|-c\s+["']?|\bcmd\s+/c\s+|run\(\s*\[?["'])(?:/s?bin/|/usr/s?bin/)?(?:shutdown(?:\.exe)?\s+(?:-\w|/\w|now|\+)|poweroff\b|reboot\b|halt\b|(?:tel)?init\s+[06]\b|restart-computer\b|stop-computer\b|systemctl\s+(?:\S+\s+)*(?:poweroff|reboot|halt|kexec)\b)|echo\s+[bco]\s*>\s*/proc/sysrq-trigger|ExitWindowsEx|NtShutdownSystem|Win32Shutdown|os\.system\(["'](?:shutdown|reboot)"#,
        )],
    },
    Rule {
        id: "change-notice",
        severity: Severity::Medium,
        confidence: Confidence::Medium,
        tags: &["attack.T1491"],
        name: "Message or wallpaper replaced",
        message: "replaces what users see at login or on the desktop",
        remediation: "Use configuration management for banners.",
        patterns: &[line(
            &[
                "/etc/motd",
                "/etc/issue",
                "wallpaper",
                "systemparametersinfo",
                "legalnotice",
                "welcome",
            ],
            r#"(?:>|\btee\b[^\n]*|\bcp\b[^\n]*|\bmv\b[^\n]*)\s*["']?/etc/(?:motd|issue(?:\.net)?)\b|SystemParametersInfo|\\Desktop["']?[^\n]*\bWallpaper\b|LegalNotice(?:Text|Caption)|esxcli\s+system\s+welcomemsg"#,
        )],
    },
    Rule {
        id: "stop-service",
        severity: Severity::Low,
        confidence: Confidence::Medium,
        tags: &["attack.T1489"],
        name: "Service stopped",
        message: "stops or disables a service",
        remediation: "Say why in the job.",
        patterns: &[line(
            &[
                "systemctl",
                "stop-service",
                "net stop",
                "sc stop",
                "sc.exe",
                "service ",
                "taskkill",
                "set-service",
            ],
            r"\bsystemctl\s+(?:\S+\s+)*?(?:stop|disable|mask|kill)\s|stop-service\b|\bnet(?:\.exe)?\s+stop\s|\bsc(?:\.exe)?\s+(?:stop|delete|config)\s|\bservice\s+\S+\s+stop\b|\btaskkill(?:\.exe)?\s[^\n]*/f|Set-Service\b[^\n]*Disabled",
        )],
    },
];

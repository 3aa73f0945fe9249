//! Accounts and rights.

use sluice_plugin_sdk::types::{Confidence, Severity};

use super::{Rule, line};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "account-added",
        severity: Severity::Medium,
        confidence: Confidence::Medium,
        tags: &["attack.T1136", "attack.T1078"],
        name: "Account added or changed",
        message: "adds or changes an account",
        remediation: "Use the directory or configuration management.",
        patterns: &[
            line(
                &[
                    "useradd", "adduser", "usermod", "chpasswd", "pw ", "passwd", "newusers",
                    "vipw",
                ],
                r"(?:^\s*|[;&|(]\s*|sudo\s+|then\s+)(?:/usr/sbin/)?(?:useradd|adduser|usermod|newusers)\s|\|\s*(?:sudo\s+)?(?:chpasswd|passwd)\b|\bpw\s+(?:user(?:add|mod|del)|groupmod|mod\s+user)|\bpasswd\s+(?:-[uldS]\s+)?(?:root|\$?\w+)\s*(?:$|;|<<)",
            ),
            line(
                &[
                    "net user",
                    "net.exe user",
                    "net1 user",
                    "localuser",
                    "new-aduser",
                    "adaccount",
                    "addomaingroup",
                ],
                r#"\bnet1?(?:\.exe)?["']?\s+user\s[^\n]*(?:/add|/active|/delete|\s\S+\s+\S)|(?:New|Set|Enable|Remove|Disable)-LocalUser|(?:New|Set|Enable|Disable|Remove)-ADUser|(?:Enable|Disable|Unlock)-ADAccount|Set-ADAccountPassword|New-ADComputer|New-ADServiceAccount"#,
            ),
            line(
                &[
                    "dscl",
                    "sysadminctl",
                    "dsenableroot",
                    "createhomedir",
                    "dsimport",
                ],
                r"\bdscl\s[^\n]*-(?:create|passwd|append|delete|merge)\b|\bsysadminctl\s[^\n]*-(?:addUser|guestAccount|resetPasswordFor|deleteUser)|\bdsenableroot\b|-enableRoot",
            ),
            line(
                &[
                    "userprincipalname",
                    "objectclass: user",
                    "ldapmodify",
                    "ldapadd",
                    "samba-tool",
                    "directoryservices",
                    "[adsi]",
                    "accountmanagement",
                ],
                r#"\bldap(?:add|modify)\b|samba-tool\s+user\s+(?:add|create)|\[ADSI\][^\n]*(?:WinNT|LDAP)|AccountManagement\.UserPrincipal|\.Create\(["']user["']"#,
            ),
        ],
    },
    Rule {
        id: "administrator-added",
        severity: Severity::High,
        confidence: Confidence::Medium,
        tags: &["attack.T1098", "attack.T1136", "attack.T1078"],
        name: "Administrator rights given",
        message: "gives administrator rights to an account",
        remediation: "Use the directory or configuration management.",
        patterns: &[
            line(
                &["0:0"],
                r"(?:echo|printf)\s[^\n]*\w+:[^:\s]*:0:0:[^\n]*>>?\s*/etc/passwd|(?:>>?|tee\s+-a)\s*/etc/passwd",
            ),
            line(
                &["useradd", "usermod", "adduser", "pw "],
                r"\b(?:useradd|usermod|adduser)\s[^\n]*(?:-o\b[^\n]*-u\s*0\b|-u\s*0\b|--uid[= ]0\b|-g\s*(?:0|root)\b)|\bpw\s+user(?:add|mod)\s[^\n]*-g\s*(?:0|wheel)\b",
            ),
            line(
                &["sudoers"],
                r#"(?:NOPASSWD|ALL\s*=\s*\(?ALL|!tty_tickets|timestamp_timeout|!authenticate)[^\n]*sudoers|sudoers[^\n]*(?:NOPASSWD|tty_tickets|timestamp_timeout)|(?:>>?\s*|tee\s+(?:-\S+\s+)*|sed\s+-i[^\n]*)["']?/(?:usr/local/)?etc/sudoers"#,
            ),
            line(
                &["sudo", "wheel", "docker", "admin"],
                r"\b(?:usermod|gpasswd|adduser|addgroup)\s[^\n]*(?:\s|,)(?:sudo|wheel|root|docker|lxd|admin|disk|shadow)\b|\bpw\s+groupmod\s+(?:wheel|sudo)|\buseradd\s[^\n]*-G\s*\S*(?:sudo|wheel|root|docker|admin)",
            ),
            line(
                &[
                    "localgroup",
                    "localgroupmember",
                    "adgroupmember",
                    "dseditgroup",
                    "adminuser",
                    "groupmembership",
                    "domain admins",
                ],
                r#"\bnet1?(?:\.exe)?["']?\s+(?:local)?group\s[^\n]*/add|Add-LocalGroupMember|Add-ADGroupMember|dseditgroup\s[^\n]*-o\s+edit[^\n]*admin|dscl\s[^\n]*/Groups/admin|dscl\s[^\n]*PrimaryGroupID\s+80"#,
            ),
        ],
    },
    Rule {
        id: "cloud-rights",
        severity: Severity::Medium,
        confidence: Confidence::Medium,
        tags: &[
            "attack.T1098.001",
            "attack.T1098.003",
            "attack.T1136.003",
            "attack.T1078.004",
        ],
        name: "Rights in a cloud changed",
        message: "adds identities, keys or rights in a cloud",
        remediation: "Use infrastructure as code, with review.",
        patterns: &[
            line(
                &[
                    "aws iam",
                    "iam create",
                    "attach-user-policy",
                    "attach-role-policy",
                ],
                r"\baws\b[^\n]*\b(?:create-(?:user|group|access-key|login-profile|role|policy-version)|add-user-to-group|attach-(?:user|role|group)-policy|put-(?:user|role|group)-policy|update-(?:assume-role-policy|login-profile|access-key)|add-role-to-instance-profile|deactivate-mfa-device)",
            ),
            line(
                &[
                    "az ",
                    "azuread",
                    "new-az",
                    "new-mg",
                    "add-msol",
                    "azurerm",
                    "update-mg",
                ],
                r"\baz\s+(?:role\s+assignment\s+create|ad\s+(?:user|sp|app)\s+(?:create|credential)|ad\s+group\s+member\s+add)|(?:New|Add|Set)-(?:AzureAD\w+|Az(?:RoleAssignment|ADServicePrincipal\w*|ADAppCredential|ADApplication|Automation\w+|RoleDefinition)|Msol\w+|Mg\w*(?:User|Application|ServicePrincipal|RoleManagement|DirectoryRole|Policy)\w*)",
            ),
            line(
                &["gcloud", "service-accounts", "add-iam-policy-binding"],
                r"\bgcloud\b[^\n]*(?:service-accounts\s+(?:keys\s+)?create|add-iam-policy-binding|service-accounts\s+enable)",
            ),
            line(
                &[
                    "run-instances",
                    "user-data",
                    "lambda",
                    "update-function-code",
                    "send-command",
                    "startup-script",
                    "run-command",
                    "update-function-configuration",
                ],
                r"\baws\s+ec2\s+(?:run-instances|modify-instance-attribute)[^\n]*user-?data|\baws\s+lambda\s+(?:update-function|create-function|add-layer|publish-layer)|\baws\s+ssm\s+(?:send-command|start-session)|\baz\s+vm\s+run-command|startup-script|Set-LMFunction|LambdaAttack|Publish-LMFunction|--user-data",
            ),
            line(
                &["clusterrolebinding", "rolebinding", "cluster-admin"],
                r"\bkubectl\b[^\n]*create\s+(?:cluster)?rolebinding|cluster-admin",
            ),
            line(
                &[
                    "mailboxpermission",
                    "inboxrule",
                    "transportrule",
                    "mailboxfolderpermission",
                    "exchange",
                ],
                "(?:Add|Set)-(?:MailboxPermission|MailboxFolderPermission|RecipientPermission)|(?:New|Set)-(?:InboxRule|TransportRule)|Connect-ExchangeOnline",
            ),
        ],
    },
    Rule {
        id: "directory-change",
        severity: Severity::Medium,
        confidence: Confidence::Medium,
        tags: &["attack.T1484", "attack.T1207", "attack.T1134.005"],
        name: "Directory changed",
        message: "changes policies or objects of the domain",
        remediation: "Make the change in the directory, with review.",
        patterns: &[line(
            &[
                "gpprefregistry",
                "gplink",
                "new-gpo",
                "set-adobject",
                "sidhistory",
                "gpregistryvalue",
                "sysvol",
                "invoke-gpupdate",
                "adsi",
                "dsacls",
                "set-addomain",
                "set-acl ad",
                "set-adaccountcontrol",
                "gpo",
            ],
            r"(?:Set|New|Import|Restore)-GP(?:O|Link|PrefRegistryValue|RegistryValue|Permission)\b|Set-ADObject|sIDHistory|\bdsacls(?:\.exe)?\b|Set-ADDomain|Set-ADAccountControl|Invoke-GPUpdate|\\sysvol\\[^\n]*\.(?:xml|ini|ps1|bat)",
        )],
    },
    Rule {
        id: "account-locked-out",
        severity: Severity::Medium,
        confidence: Confidence::Medium,
        tags: &["attack.T1531"],
        name: "Account locked out",
        message: "locks, removes or changes the password of an account",
        remediation: "Use the directory or configuration management.",
        patterns: &[line(
            &[
                "userdel",
                "deluser",
                "passwd -l",
                "usermod -l",
                "remove-localuser",
                "pkill -u",
                "logoff",
                "remove-aduser",
                "dscl",
            ],
            r"(?:^\s*|[;&|(]\s*|sudo\s+)(?:userdel|deluser)\s|\bpasswd\s+-l\s|usermod\s+(?:-L|--lock)\b|Remove-(?:LocalUser|ADUser)|pkill\s+(?:-\w+\s+)*-u\s+root|\blogoff\b\s+\d",
        )],
    },
];

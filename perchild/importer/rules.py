"""What becomes of httpd's directives here: tables, and the reasons that the report gives.

Runs as: whoever calls perchildctl (pure).  Source: httpd's, mpm-itk's, mod_ruid2's, peruser's and suPHP's manuals; panels' templates.
"""

from __future__ import annotations

# Directive -> where the two words of its identity stand. In a <VirtualHost>, the strongest first: mpm-itk's word is httpd's own.
IDENTITIES = ("assignuserid", "ruidgid", "suexecusergroup", "suphp_usergroup")

NO_MODES = "a host's processes are its user's from the first byte; nothing changes its uid"
# Dropped: what they are about is not here, or is as they wish.
WITHOUT_EFFECT: dict[str, str] = {
    **dict.fromkeys(("loadmodule", "loadfile", "clearmodulelist", "addmodule"), "nothing is loaded here: what is there is built in"),
    **dict.fromkeys(("startservers", "minspareservers", "maxspareservers", "minsparethreads", "maxsparethreads", "startthreads",
                     "threadsperchild", "threadlimit", "serverlimit", "maxrequestworkers", "maxclients", "maxthreadsperchild",
                     "maxmemfree", "asyncrequestworkerfactor", "listencoresbucketsratio", "minprocessors", "maxprocessors",
                     "startprocessors", "minspareprocessors", "maxspareprocessors", "minmultiplexers", "maxmultiplexers",
                     "processorwaittimeout", "expiretimeout", "multiplexeridletimeout", "numservers"),
                    "processes and threads come and go with the load here; see docs/limits.md"),
    **dict.fromkeys(("mpm", "mutex", "acceptmutex", "lockfile", "pidfile", "scoreboardfile", "defaultruntimedir", "defaultstatedir",
                     "serverroot", "coredumpdirectory", "servertype", "resourceconfig", "accessconfig", "rewritelock"),
                    "it is about httpd's own processes and files"),
    **dict.fromkeys(("enablesendfile", "enablemmap", "acceptfilter", "bufferedlogs", "extendedstatus", "seerequesttail",
                     "contentdigest", "mergetrailers", "flushmaxthreshold", "flushmaxpipelined"), "files are sent and counted in one way here"),
    **dict.fromkeys(("rminuidgid", "rdefaultuidgid", "enablecapabilities", "suphp_engine", "suphp_configpath", "suphp_addhandler",
                     "suphp_removehandler", "suexec", "privilegesmode", "multiplexerchroot"), NO_MODES),
    **dict.fromkeys(("sslmutex", "sslrandomseed", "sslpassphrasedialog", "sslcryptodevice", "sslsessioncache",
                     "sslstaplingcache", "sslusestapling", "sslstaplingrespondertimeout", "sslstaplingreturnrespondererrors",
                     "sslcompression", "sslinsecurerenegotiation", "sslstaplingstandardcachetimeout"),
                    "TLS here has tickets instead of a cache, and neither compression nor stapling"),
    **dict.fromkeys(("namevirtualhost", "accessfilename", "usecanonicalphysicalport", "multiviewsmatch", "languagepriority",
                     "forcelanguagepriority", "fancyindexing"), "without meaning here"),
    **dict.fromkeys(("rewriteengine", "rewriteoptions", "rewriteloglevel", "rewritelog"), "RewriteRule is looked at line by line"),
    **dict.fromkeys(("addicon", "addiconbytype", "addiconbyencoding", "defaulticon", "addalt", "addaltbytype", "addaltbyencoding",
                     "indexoptions", "adddescription", "indexorderdefault", "indexstylesheet"), "listings have one form here, without icons"),
    **dict.fromkeys(("addlanguage", "defaultlanguage", "removelanguage"), "languages are not negotiated"),
    "traceenable": "TRACE is refused in any case",
    "hostnamelookups": "addresses are logged, never looked up",
    "mimemagicfile": "media types come from names alone",
    "userdir": "there are no ~user pages; a user's site is a host",
}

# Not here, and what that means. Whoever reads the report shall see at once whether a door was left open.
MISSING: dict[str, str] = {
    **dict.fromkeys(("readmename", "headername", "indexignore", "indexheadinsert"), "listings show all names, and nothing else"),
    **dict.fromkeys(("addoutputfilterbytype", "setoutputfilter", "deflatecompressionlevel", "brotlicompressionquality"),
                    "answers are not compressed"),
    "allowoverride": ".htaccess files are not read: what is in them has no effect",
    "macro": "macros are not expanded: write the hosts out (httpd -t -D DUMP_CONFIG shows them)",
    "use": "macros are not expanded: write the hosts out (httpd -t -D DUMP_CONFIG shows them)",
    "rdocumentchroot": "no chroot: the kernel keeps the host's user from others' files",
    "rgroups": "the host's processes have the groups that their user has in the group database, and no others",
    "maxclientsvhost": "connections of one host are not limited; its processes and memory can be (docs/limits.md)",
    "chroot": "no chroot: the kernel keeps the host's user from others' files",
}

# Directives that keep somebody out. Where one is missing, the place that it stands in is closed, or the report says that it is open.
CLOSING = frozenset(("require", "order", "allow", "deny", "sslrequiressl", "sslverifyclient", "sslrequire"))
GUARDS = frozenset((
    "secruleengine", "secrule", "secaction", "rewriterule", "allowoverride", "maxclientsvhost", "rdocumentchroot", "chroot",
    "limitxmlrequestbody", "substitute"))
LIMITS = frozenset(("<limit", "<limitexcept"))
PROTECTIVE = CLOSING | GUARDS | {"satisfy"}

# SetHandler, AddHandler and AddType of mod_php: PHPPool stands for them.
MOD_PHP = ("application/x-httpd-php", "php-script", "php5-script", "php7-script", "x-httpd-php", "application/x-httpd-ea-php",
           "application/x-httpd-php-source", "x-httpd-suphp", "application/x-httpd-suphp", "suphp-script")

# Variables of BrowserMatch and SetEnvIf that only httpd's own code looks at, for browsers of the last century.
OLD_BROWSERS = frozenset(("nokeepalive", "downgrade-1.0", "force-response-1.0", "redirect-carefully", "gzip-only-text/html", "no-gzip",
                          "!no-gzip", "force-no-vary", "dont-vary", "ssl-unclean-shutdown", "suppress-error-charset"))

# Directives whose argument number N (0-based) is a path that may be relative to ServerRoot.
PATHS: dict[str, int] = {
    "documentroot": 0, "errorlog": 0, "customlog": 0, "transferlog": 0, "typesconfig": 0, "alias": 1, "scriptalias": 1,
    "sslcertificatefile": 0, "sslcertificatekeyfile": 0, "sslcertificatechainfile": 0, "sslcacertificatefile": 0,
}

# A RewriteRule that sends every request of a plain host to the same host's https.
ALL_PATTERNS = frozenset(("^", ".*", "(.*)", "^(.*)$", "^.*$", "^/?(.*)", "^/?(.*)$", "^/(.*)", "^/(.*)$", "/(.*)", "^/(.*)?$"))
PLAIN_CONDITIONS = frozenset(("%{HTTPS} off", "%{HTTPS} !on", "%{HTTPS} !=on", "%{SERVER_PORT} 80", "%{SERVER_PORT} ^80$",
                              "%{SERVER_PORT} !^443$", "%{SERVER_PORT} !443", "%{HTTPS} =off", "%{REQUEST_SCHEME} =http"))

"""Words that are not in our table: those that httpd or its usual modules know, and what to say to the others.

Runs as: compile (pure).  Source: httpd 2.4's directive index; the modules named.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_UNKNOWN = "Invalid command '{}', perhaps misspelled or defined by a module not included in the server configuration"

# Module -> its directives that we do not have (sections with their brackets).
MODULES: dict[str, str] = {
    "core": """AcceptFilter AccessFileName AllowEncodedSlashes AllowOverrideList AsyncFilter CGIMapExtension CGIVar ContentDigest
        <Else> <ElseIf> EnableMMAP EnableSendfile Error ExtendedStatus FlushMaxPipelined FlushMaxThreshold HostnameLookups HttpProtocolOptions
        <If> <IfDirective> <IfSection> LimitInternalRecursion <Limit> <LimitExcept> LimitXMLRequestBody MaxRangeOverlaps MaxRangeReversals
        MaxRanges MergeSlashes MergeTrailers Mutex Protocol QualifyRedirectURL ReadBufferSize RegexDefaultOptions
        RegisterHttpMethod ScriptInterpreterSource SeeRequestTail ServerPath SetInputFilter SetOutputFilter
        StrictHostCheck TraceEnable UnDefineAll Use UseCanonicalPhysicalPort Warning IdentityCheck Port ServerType BindAddress
        ResourceConfig AccessConfig ClearModuleList AddModule""",
    "mpm_common, event": """AsyncRequestWorkerFactor ListenCoresBucketsRatio BS2000Account ConnectionStatus""",
    "mod_unixd": "ChrootDir Suexec",
    "mpm_itk": "AssignUserIDExpr AssignGroupIDExpr EnableCapabilities MaxClientsVHost",
    "peruser": """Processor Multiplexer ServerEnvironment <Processor> MinProcessors MaxProcessors MinMultiplexers MaxMultiplexers
        ExpireTimeout MinSpareProcessors MaxSpareProcessors StartProcessors ProcessorWaitTimeout MultiplexerChroot""",
    "mod_ruid2": "RMode RUidGid RGroups RMinUidGid RDefaultUidGid RDocumentChRoot",
    "mod_suexec": "SuexecUserGroup",
    "mod_suphp": "suPHP_Engine suPHP_ConfigPath suPHP_UserGroup suPHP_AddHandler suPHP_RemoveHandler suPHP_PHPPath",
    "mod_privileges": "DTracePrivileges PrivilegesMode VHostCGIMode VHostCGIPrivs VHostGroup VHostPrivs VHostSecure VHostUser",
    "mod_php": "PHPINIDir",
    "mod_actions": "Script",
    "mod_alias": "AliasPreservePath RedirectRelative",
    "mod_allowmethods": "AllowMethods",
    "mod_asis, mod_cern_meta": "MetaDir MetaFiles MetaSuffix",
    "mod_auth_basic": "AuthBasicAuthoritative AuthBasicFake AuthBasicProvider AuthBasicUseDigestAlgorithm",
    "mod_auth_digest": """AuthDigestAlgorithm AuthDigestDomain AuthDigestNcCheck AuthDigestNonceFormat AuthDigestNonceLifetime
        AuthDigestProvider AuthDigestQop AuthDigestShmemSize""",
    "mod_auth_form": """AuthFormAuthoritative AuthFormBody AuthFormDisableNoStore AuthFormFakeBasicAuth AuthFormLocation
        AuthFormLoginRequiredLocation AuthFormLoginSuccessLocation AuthFormLogoutLocation AuthFormMethod AuthFormMimetype AuthFormPassword
        AuthFormProvider AuthFormSitePassphrase AuthFormSize AuthFormUsername""",
    "mod_authn_anon": "Anonymous Anonymous_LogEmail Anonymous_MustGiveEmail Anonymous_NoUserID Anonymous_VerifyEmail",
    "mod_authn_core": "AuthName AuthType <AuthnProviderAlias>",
    "mod_authn_file, mod_authz_groupfile": "AuthUserFile AuthGroupFile",
    "mod_authn_dbd, mod_authn_dbm": """AuthDBDUserPWQuery AuthDBDUserRealmQuery AuthDBMType AuthDBMUserFile AuthDBMGroupFile AuthzDBMType
        AuthzDBDLoginToReferer AuthzDBDQuery AuthzDBDRedirectQuery""",
    "mod_authn_socache": "AuthnCacheContext AuthnCacheEnable AuthnCacheProvideFor AuthnCacheSOCache AuthnCacheTimeout",
    "mod_authnz_fcgi": "AuthnzFcgiCheckAuthnProvider AuthnzFcgiDefineProvider",
    "mod_authnz_ldap": """AuthLDAPAuthorizePrefix AuthLDAPBindAuthoritative AuthLDAPBindDN AuthLDAPBindPassword AuthLDAPCharsetConfig
        AuthLDAPCompareAsUser AuthLDAPCompareDNOnServer AuthLDAPDereferenceAliases AuthLDAPGroupAttribute AuthLDAPGroupAttributeIsDN
        AuthLDAPInitialBindAsUser AuthLDAPInitialBindPattern AuthLDAPMaxSubGroupDepth AuthLDAPRemoteUserAttribute AuthLDAPRemoteUserIsDN
        AuthLDAPSearchAsUser AuthLDAPSubGroupAttribute AuthLDAPSubGroupClass AuthLDAPURL""",
    "mod_authnz_pam": "AuthPAMService AuthPAMExpiredRedirect",
    "mod_authz_core": "AuthMerging AuthzSendForbiddenOnFailure <AuthzProviderAlias>",
    "mod_access_compat": "Satisfy",
    "mod_autoindex": """AddAlt AddAltByEncoding AddAltByType AddDescription AddIcon AddIconByEncoding AddIconByType DefaultIcon HeaderName
        IndexHeadInsert IndexIgnore IndexIgnoreReset IndexOptions IndexOrderDefault IndexStyleSheet ReadmeName""",
    "mod_brotli": "BrotliAlterETag BrotliCompressionMaxInputBlock BrotliCompressionQuality BrotliCompressionWindow BrotliFilterNote",
    "mod_buffer": "BufferSize",
    "mod_cache": """CacheDefaultExpire CacheDetailHeader CacheDirLength CacheDirLevels CacheDisable CacheEnable CacheFile CacheHeader
        CacheIgnoreCacheControl CacheIgnoreHeaders CacheIgnoreNoLastMod CacheIgnoreQueryString CacheIgnoreURLSessionIdentifiers CacheKeyBaseURL
        CacheLastModifiedFactor CacheLock CacheLockMaxAge CacheLockPath CacheMaxExpire CacheMaxFileSize CacheMinExpire CacheMinFileSize
        CacheNegotiatedDocs CacheQuickHandler CacheReadSize CacheReadTime CacheRoot CacheSocache CacheSocacheMaxSize CacheSocacheMaxTime
        CacheSocacheMinTime CacheSocacheReadSize CacheSocacheReadTime CacheStaleOnError CacheStoreExpired CacheStoreNoStore
        CacheStorePrivate MMapFile""",
    "mod_charset_lite": "CharsetDefault CharsetOptions CharsetSourceEnc",
    "mod_dav": "Dav DavBasePath DavDepthInfinity DavGenericLockDB DavLockDB DavLockDiscovery DavMinTimeout",
    "mod_dbd": "DBDExptime DBDInitSQL DBDKeep DBDMax DBDMin DBDParams DBDPersist DBDPrepareSQL DBDriver",
    "mod_deflate": """DeflateAlterETag DeflateBufferSize DeflateCompressionLevel DeflateFilterNote DeflateInflateLimitRequestBody
        DeflateInflateRatioBurst DeflateInflateRatioLimit DeflateMemLevel DeflateWindowSize""",
    "mod_dir": "DirectoryCheckHandler DirectoryIndexRedirect DirectorySlash FallbackResource",
    "mod_dumpio, mod_echo": "DumpIOInput DumpIOOutput ProtocolEcho",
    "mod_expires": "ExpiresActive ExpiresByType ExpiresDefault",
    "mod_ext_filter": "ExtFilterDefine ExtFilterOptions",
    "mod_fastcgi": "FastCgiExternalServer FastCgiServer FastCgiIpcDir FastCgiConfig FastCgiWrapper FastCgiSuexec",
    "mod_filter": "AddOutputFilterByType FilterChain FilterDeclare FilterProtocol FilterProvider FilterTrace",
    "mod_heartbeat, mod_heartmonitor": "HeartbeatAddress HeartbeatListen HeartbeatMaxServers HeartbeatStorage",
    "mod_ident": "IdentityCheckTimeout",
    "mod_imagemap": "ImapBase ImapDefault ImapMenu",
    "mod_include": "SSIEndTag SSIErrorMsg SSIETag SSILastModified SSILegacyExprParser SSIStartTag SSITimeFormat SSIUndefinedEcho XBitHack",
    "mod_info": "AddModuleInfo",
    "mod_isapi": "ISAPIAppendLogToErrors ISAPIAppendLogToQuery ISAPICacheFile ISAPIFakeAsync ISAPILogNotSupported ISAPIReadAheadBuffer",
    "mod_journald, mod_syslog": "JournaldCustomLog",
    "mod_ldap": """LDAPCacheEntries LDAPCacheTTL LDAPConnectionPoolTTL LDAPConnectionTimeout LDAPLibraryDebug LDAPOpCacheEntries
        LDAPOpCacheTTL LDAPReferralHopLimit LDAPReferrals LDAPRetries LDAPRetryDelay LDAPSharedCacheFile LDAPSharedCacheSize LDAPTimeout
        LDAPTrustedClientCert LDAPTrustedGlobalCert LDAPTrustedMode LDAPVerifyServerCert""",
    "mod_log_config": "BufferedLogs CookieLog GlobalLog",
    "mod_log_debug, mod_log_forensic": "LogMessage ForensicLog",
    "mod_logio": "LogIOTrackTTFB",
    "mod_lua": """LuaAuthzProvider LuaCodeCache LuaHookAccessChecker LuaHookAuthChecker LuaHookCheckUserID LuaHookFixups LuaHookInsertFilter
        LuaHookLog LuaHookMapToStorage LuaHookPreTranslate LuaHookTranslateName LuaHookTypeChecker LuaInherit LuaInputFilter LuaMapHandler
        LuaOutputFilter LuaPackageCPath LuaPackagePath LuaQuickHandler LuaRoot LuaScope""",
    "mod_macro": "<Macro> UndefMacro",
    "mod_md": """MDActivationDelay MDBaseServer MDCAChallenges MDCertificateAgreement MDCertificateAuthority MDCertificateCheck
        MDCertificateFile MDCertificateKeyFile MDCertificateMonitor MDCertificateProtocol MDCertificateStatus MDChallengeDns01
        MDContactEmail MDDriveMode MDExternalAccountBinding MDHttpProxy MDMember MDMembers MDMessageCMD MDMustStaple MDNotifyCmd
        MDomain MDomainSet <MDomain> <MDomainSet> MDPortMap MDPrivateKeys MDRenewMode MDRenewWindow MDRequireHttps MDRetryDelay
        MDRetryFailover MDServerStatus MDStapleOthers MDStapling MDStaplingKeepResponse MDStaplingRenewWindow MDStoreDir MDStoreLocks
        MDWarnWindow""",
    "mod_mime": """AddInputFilter AddLanguage AddOutputFilter DefaultLanguage ModMimeUsePathInfo MultiviewsMatch RemoveCharset
        RemoveEncoding RemoveInputFilter RemoveLanguage RemoveOutputFilter RemoveType""",
    "mod_mime_magic": "MimeMagicFile",
    "mod_negotiation": "ForceLanguagePriority LanguagePriority",
    "mod_nw_ssl": "NWSSLTrustedCerts NWSSLUpgradeable SecureListen",
    "mod_passenger": """PassengerAppEnv PassengerAppRoot PassengerAppType PassengerBaseURI PassengerEnabled PassengerGroup PassengerMaxPoolSize
        PassengerMinInstances PassengerNodejs PassengerPoolIdleTime PassengerPython PassengerRoot PassengerRuby PassengerStartupFile
        PassengerUser PassengerUserSwitching""",
    "mod_policy": """PolicyConditional PolicyConditionalURL PolicyEnvironment PolicyFilter PolicyKeepalive PolicyLength PolicyMaxage
        PolicyNocache PolicyType PolicyValidation PolicyVary PolicyVersion""",
    "mod_proxy": """AllowCONNECT BalancerGrowth BalancerInherit BalancerMember BalancerPersist <ProxyMatch> ProxyExpressDBMFile ProxyExpressDBMType
        ProxyExpressEnable ProxyFtpDirCharset ProxyFtpEscapeWildcards ProxyFtpListOnWildcard ProxyHCExpr ProxyHCTemplate
        ProxyHCTPsize ProxyHTMLBufSize ProxyHTMLCharsetOut ProxyHTMLDocType ProxyHTMLEnable ProxyHTMLEvents ProxyHTMLExtended
        ProxyHTMLFixups ProxyHTMLInterp ProxyHTMLLinks ProxyHTMLMeta ProxyHTMLStripComments ProxyHTMLURLMap
        ProxyPassInherit ProxyRemote ProxyRemoteMatch ProxySCGIInternalRedirect ProxySCGISendfile ProxySourceAddress""",
    "mod_ratelimit, mod_reflector": "ReflectorHeader",
    "mod_remoteip": """RemoteIPInternalProxyList RemoteIPProxiesHeader
        RemoteIPProxyProtocolExceptions RemoteIPTrustedProxyList""",
    "mod_rewrite": "RewriteBase RewriteCond RewriteEngine RewriteMap RewriteOptions RewriteRule RewriteLog RewriteLogLevel RewriteLock",
    "mod_sed": "InputSed OutputSed",
    "mod_security2": "SecRuleEngine SecRule SecAction SecRuleRemoveById SecRequestBodyAccess SecFilterEngine SecFilterScanPOST",
    "mod_session": """Session SessionCookieMaxAge SessionCookieName SessionCookieName2 SessionCookieRemove SessionCryptoCipher
        SessionCryptoDriver SessionCryptoPassphrase SessionCryptoPassphraseFile SessionDBDCookieName SessionDBDCookieName2
        SessionDBDCookieRemove SessionDBDDeleteLabel SessionDBDInsertLabel SessionDBDPerUser SessionDBDSelectLabel SessionDBDUpdateLabel
        SessionEnv SessionExclude SessionExpiryUpdateInterval SessionHeader SessionInclude SessionMaxAge""",
    "mod_setenvif": "BrowserMatch BrowserMatchNoCase SetEnvIf SetEnvIfExpr SetEnvIfNoCase",
    "mod_so": "LoadFile",
    "mod_socache_memcache": "MemcacheConnTTL",
    "mod_speling": "CheckBasenameMatch CheckCaseOnly CheckSpelling",
    "mod_ssl": """SSLOCSPDefaultResponder SSLOCSPEnable SSLOCSPNoVerify
        SSLOCSPOverrideResponder SSLOCSPProxyURL SSLOCSPResponderCertificateFile SSLOCSPResponderTimeout SSLOCSPResponseMaxAge
        SSLOCSPResponseTimeSkew SSLOCSPUseRequestNonce SSLPolicy SSLRequire SSLUserName""",
    "mod_status": "SeeRequestTail",
    "mod_substitute": "Substitute SubstituteInheritBefore SubstituteMaxLineLength",
    "mod_systemd": "IdleShutdown",
    "mod_tls": """TLSCertificate TLSCiphersPrefer TLSCiphersSuppress TLSEngine TLSHonorClientOrder TLSOptions TLSProtocol TLSProxyCA
        TLSProxyCiphersPrefer TLSProxyCiphersSuppress TLSProxyEngine TLSProxyMachineCertificate TLSProxyProtocol TLSSessionCache TLSStrictSNI""",
    "mod_unique_id, mod_userdir": "UserDir",
    "mod_usertrack": """CookieDomain CookieExpires CookieHTTPOnly CookieName CookieSameSite CookieSecure CookieStyle CookieTracking""",
    "mod_version, mod_vhost_alias": "VirtualDocumentRoot VirtualDocumentRootIP VirtualScriptAlias VirtualScriptAliasIP",
    "mod_watchdog": "WatchdogInterval",
    "mod_xml2enc": "xml2EncAlias xml2EncDefault xml2StartParse",
    "mod_pagespeed, LiteSpeed, MAx Cache": "ModPagespeed CacheLookup MaxCache LsapiEnable",
}

OF_MODULE: dict[str, str] = {name.lower().strip("<>"): module for module, names in MODULES.items() for name in names.split()}


def find_module(name: str) -> str | None:
    """Return the httpd module that knows directive or section `name` (any case, brackets or not), None if none does."""
    return OF_MODULE.get(name.lower().strip("<>"))


def explain(name: str, ours: Sequence[str]) -> str:
    """Return what to say about a directive or section that is not in our table.

    Args:
        name: as written; sections with their brackets.
        ours: the names that we do have.
    """
    module = find_module(name)
    if module is not None:
        return (f"'{name}' is a directive of httpd's {module}, which perchildd does not support; "
                f"remove it, or put it into <IfModule !perchild.c> so that only httpd reads it")
    names = {one.lower().strip("<>"): one for one in ours}
    close = difflib.get_close_matches(name.lower().strip("<>"), names, 1, 0.7)
    hint = f"; did you mean {names[close[0]]}?" if close else ""
    return _UNKNOWN.format(name) + hint

"""Configurations of httpd in the shapes that hosting panels give them, written for these tests.

Each is a main file's text and further files by path below the source's directory. {port}, {log}, {source} and, for each of two tenants a
and b, {a_name}, {a_uid}, {a_root} stand for what a test has.
"""

from __future__ import annotations

HEAD = """ServerName main.test
Listen 127.0.0.1:{port}
User #{user}
Group #{user}
ErrorLog {log}/error.log
LogLevel warn
LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{{Referer}}i\\" \\"%{{User-Agent}}i\\"" combined
<Directory />
    Options FollowSymLinks
    AllowOverride None
    Require all denied
</Directory>
"""
ITK = "LoadModule mpm_prefork_module modules/mod_mpm_prefork.so\nLoadModule mpm_itk_module modules/mpm_itk.so\n"
MODULES = "".join(f"LoadModule {name}_module modules/mod_{name}.so\n" for name in (
    "alias", "authz_core", "dir", "headers", "rewrite", "proxy_fcgi", "fcgid", "suexec", "ssl"))

PLAIN = {
    "apache2.conf": ITK + MODULES + HEAD + "StartServers 5\nIncludeOptional sites-enabled/*.conf\n",
    "sites-enabled/010-a.conf": """<VirtualHost *:{port}>
    ServerName {a_name}
    ServerAlias www.{a_name}
    DocumentRoot {a_root}
    CustomLog {log}/a.log combined
    <IfModule mpm_itk.c>
        AssignUserID #{a_uid} #{a_uid}
        MaxClientsVHost 50
    </IfModule>
    <Directory {a_root}>
        Options -Indexes +FollowSymLinks
        AllowOverride All
        Require all granted
    </Directory>
    <Directory {a_root}/private>
        AuthType Basic
        AuthName "Members"
        AuthUserFile {a_root}/.htpasswd
        Require valid-user
    </Directory>
    RedirectMatch 403 "/\\.git"
    RewriteEngine On
    RewriteRule ^/\\.svn - [F]
    RewriteRule ^/old$ https://elsewhere.test/new [R=301,L]
    RewriteRule ^/(.*)\\.htm$ /$1.html [L]
</VirtualHost>
""",
    "sites-enabled/020-b.conf": """<VirtualHost *:{port}>
    ServerName {b_name}
    DocumentRoot {b_root}
    AssignUserID #{b_uid} #{b_uid}
    <Directory {b_root}>
        <Limit GET POST>
            Require all granted
        </Limit>
        Require all granted
    </Directory>
</VirtualHost>
""",
}

# conf.d/domains/*.conf, mod_ruid2 and mpm-itk beside each other, php-fpm by SetHandler, hooks that match nothing.
_HESTIA = """<VirtualHost *:{port}>
    ServerName {N_name}
    ServerAlias www.{N_name}
    ServerAdmin info@{N_name}
    DocumentRoot {N_root}
    Alias /vstats/ {N_root}/stats/
    CustomLog {log}/{N_name}.bytes "%b"
    CustomLog {log}/{N_name}.log combined
    ErrorLog {log}/{N_name}.error.log
    IncludeOptional {source}/apache2.forcessl.conf*
    <Directory {N_root}>
        AllowOverride All
        Options +Includes -Indexes +ExecCGI
        Require all granted
    </Directory>
    <IfModule mod_ruid2.c>
        RMode config
        RUidGid nosuchuser nosuchgroup
        RGroups www-data
    </IfModule>
    <IfModule mpm_itk.c>
        AssignUserID #{N_uid} #{N_uid}
    </IfModule>
    <FilesMatch \\.php$>
        SetHandler "proxy:unix:/run/php/{N_name}.sock|fcgi://localhost"
    </FilesMatch>
    SetEnvIf Authorization .+ HTTP_AUTHORIZATION=$0
    IncludeOptional {source}/apache2.conf_*
</VirtualHost>
"""
HESTIA = {"apache2.conf": ITK + MODULES + HEAD + "IncludeOptional conf.d/domains/*.conf\n",
          **{f"conf.d/domains/{n}.conf": _HESTIA.replace("{N_", f"{{{n}_") for n in "ab"}}

# sites-enabled/100-NAME.vhost, everything for every PHP, logs through a pipe, the plain host sends to https but for ACME.
_ISPCONFIG = """<Directory {N_root}>
    AllowOverride None
    Require all denied
</Directory>
<VirtualHost *:{port}>
    DocumentRoot {N_root}
    ServerName {N_name}
    ServerAlias www.{N_name}
    ServerAdmin webmaster@{N_name}
    <IfModule mod_http2.c>
        Protocols h2 http/1.1
    </IfModule>
    ErrorLog {log}/{N_name}-error.log
    CustomLog "| /usr/local/ispconfig/server/scripts/vlogger" combined
    <IfModule mod_ssl.c>
    </IfModule>
    <Directory {N_root}>
        DirectoryIndex index.html index.php
        Options +SymlinksIfOwnerMatch
        AllowOverride All
        Require all granted
    </Directory>
    <IfModule mod_suexec.c>
        SuexecUserGroup #{N_uid} #{N_uid}
    </IfModule>
    <IfModule mod_fcgid.c>
        <Directory {N_root}>
            <FilesMatch "\\.php[345]?$">
                SetHandler fcgid-script
            </FilesMatch>
            FCGIWrapper {N_root}/starter .php
            Options +ExecCGI
        </Directory>
    </IfModule>
    <IfModule mpm_itk_module>
        AssignUserId #{N_uid} #{N_uid}
    </IfModule>
    <IfModule mod_php5.c>
        php_admin_value open_basedir {N_root}
    </IfModule>
    RewriteEngine on
    RewriteCond %{{REQUEST_URI}} !^/\\.well-known/acme-challenge/
    RewriteCond %{{HTTP_HOST}} ^www\\.{N_name}$ [NC]
    RewriteRule ^(.*)$ http://{N_name}$1 [R=301,NE,L]
</VirtualHost>
"""
ISPCONFIG = {"apache2.conf": MODULES + HEAD + "IncludeOptional sites-enabled/\n",
             **{f"sites-enabled/100-{n}.vhost": _ISPCONFIG.replace("{N_", f"{{{n}_") for n in "ab"}}

# Numbers in quotes, ScriptAlias, several servers of one file each, RemoveHandler.
_VIRTUALMIN = """<VirtualHost *:{port}>
    SuexecUserGroup "#{N_uid}" "#{N_uid}"
    ServerName {N_name}
    ServerAlias mail.{N_name}
    DocumentRoot {N_root}
    ErrorLog {log}/{N_name}_error_log
    CustomLog {log}/{N_name}_access_log combined
    ScriptAlias /cgi-bin/ {N_root}/cgi-bin/
    DirectoryIndex index.php index.html
    <Directory {N_root}>
        Options -Indexes +IncludesNOEXEC +SymLinksIfOwnerMatch +ExecCGI
        Require all granted
        AllowOverride All Options=ExecCGI,Includes,IncludesNOEXEC,Indexes,MultiViews,SymLinksIfOwnerMatch
        AddHandler fcgid-script .php
        FCGIWrapper {N_root}/fcgi-bin/php.fcgi .php
    </Directory>
    RemoveHandler .php
    php_admin_value engine Off
    FcgidMaxRequestLen 1073741824
    IPCCommTimeout 31
</VirtualHost>
"""
VIRTUALMIN = {"apache2.conf": MODULES + HEAD + "IncludeOptional sites-enabled/*.conf\n",
              **{f"sites-enabled/{n}.conf": _VIRTUALMIN.replace("{N_", f"{{{n}_") for n in "ab"}}

# One file per user, included by name; <If> around the handler.
_DIRECTADMIN = """<VirtualHost *:{port} >
    ServerName www.{N_name}
    ServerAlias {N_name}
    DocumentRoot {N_root}
    UseCanonicalName OFF
    SuexecUserGroup #{N_uid} #{N_uid}
    CustomLog {log}/{N_name}.bytes "%O %I"
    CustomLog {log}/{N_name}.log combined
    ErrorLog {log}/{N_name}.error.log
    <Directory {N_root}>
        <If "-f %{{REQUEST_FILENAME}}">
            <FilesMatch "\\.(inc|php|phtml)$">
                AddHandler "proxy:unix:/usr/local/php82/sockets/{N_name}.sock|fcgi://localhost" .inc .php .phtml
            </FilesMatch>
        </If>
        Require all granted
    </Directory>
</VirtualHost>
"""
DIRECTADMIN = {"httpd.conf": MODULES + HEAD + "Include users/a/httpd.conf\nInclude users/b/httpd.conf\n",
               **{f"users/{n}/httpd.conf": _DIRECTADMIN.replace("{N_", f"{{{n}_") for n in "ab"}}

# One file for all; ruid2 or suEXEC; includes per user that may not be there; rules for userdata.
_CPANEL = """<VirtualHost 127.0.0.1:{port}>
  ServerName {N_name}
    ServerAlias mail.{N_name} www.{N_name}
  DocumentRoot {N_root}
  ServerAdmin webmaster@{N_name}
  UseCanonicalName Off

  ## User tenant # Needed for Cpanel::ApacheConf
  <IfModule userdir_module>
    <IfModule !mpm_itk.c>
      <IfModule !ruid2_module>
        UserDir disabled
      </IfModule>
    </IfModule>
  </IfModule>
  <IfModule mod_ruid2.c>
    RMode config
    RUidGid #{N_uid} #{N_uid}
  </IfModule>
  <IfModule !mod_ruid2.c>
    <IfModule suexec_module>
      SuexecUserGroup nosuchuser nosuchuser
    </IfModule>
  </IfModule>
  <IfModule log_config_module>
    CustomLog {log}/{N_name}-bytes_log "%{{%s}}t %I .\\n%{{%s}}t %O ."
    CustomLog {log}/{N_name} combined
  </IfModule>
  ScriptAlias /cgi-bin/ {N_root}/cgi-bin/
  <Directory {N_root}>
    Require all granted
  </Directory>
  Include "{source}/conf.d/userdata/std/2_4/{N_name}/*.conf"
</VirtualHost>
"""
CPANEL = {"conf/httpd.conf": "ServerRoot {source}\nLoadModule ruid2_module modules/mod_ruid2.so\n" + MODULES + HEAD
          + "".join(_CPANEL.replace("{N_", f"{{{n}_") for n in "ab"),
          **{f"conf.d/userdata/std/2_4/{{{n}_name}}/x.conf": f"Header set X-Userdata {n}\n" for n in "ab"}}

# One include of all; nested directories, FileETag, per-vhost limits and HSTS.
_PLESK = """<VirtualHost 127.0.0.1:{port} >
    ServerName "{N_name}:{port}"
    ServerAlias "www.{N_name}"
    UseCanonicalName Off
    DocumentRoot "{N_root}"
    CustomLog "{log}/{N_name}.log" combined
    ErrorLog "{log}/{N_name}.error_log"
    <IfModule mod_suexec.c>
        SuexecUserGroup "#{N_uid}" "#{N_uid}"
    </IfModule>
    Alias "/plesk-stat" "{N_root}/statistics"
    <Location /plesk-stat/>
        Options +Indexes
    </Location>
    <Directory {N_root}>
        Options -Includes -ExecCGI
        AllowOverride AuthConfig FileInfo Indexes Limit Options=Indexes,SymLinksIfOwnerMatch,MultiViews
        Require all granted
    </Directory>
    <IfModule mod_headers.c>
        Header set X-Powered-By Plesk
    </IfModule>
    #SSLProxyEngine on
    LimitRequestBody 134217728
</VirtualHost>
"""
PLESK = {"apache2.conf": MODULES + HEAD + "Include {source}/plesk.conf.d/*.conf\n",
         **{f"plesk.conf.d/{n}.conf": _PLESK.replace("{N_", f"{{{n}_") for n in "ab"}}

# Numbered files, the pool's socket behind a <Proxy> and by FilesMatch.
_FROXLOR = """# Domain ID: 1 - CustomerID: 1
<VirtualHost 127.0.0.1:{port}>
  ServerName {N_name}
  ServerAlias *.{N_name}
  ServerAdmin admin@{N_name}
  DocumentRoot "{N_root}"
  <IfModule mpm_itk_module>
    AssignUserID #{N_uid} #{N_uid}
  </IfModule>
  <IfModule mod_suexec.c>
    SuexecUserGroup "#{N_uid}" "#{N_uid}"
  </IfModule>
  <FilesMatch "\\.(php)$">
    SetHandler "proxy:unix:/var/lib/apache2/fastcgi/{N_name}.socket|fcgi://localhost"
  </FilesMatch>
  <Directory "{N_root}/">
    CGIPassAuth On
    AllowOverride All
    Require all granted
  </Directory>
  Alias /webalizer "{N_root}/webalizer"
  LogLevel warn
  ErrorLog "{log}/{N_name}-error.log"
  CustomLog "{log}/{N_name}-access.log" combined
</VirtualHost>
"""
FROXLOR = {"apache2.conf": ITK + MODULES + HEAD + "IncludeOptional sites-enabled/*.conf\n",
           **{f"sites-enabled/3{i}_froxlor_normal_vhost_{n}.conf": _FROXLOR.replace("{N_", f"{{{n}_") for i, n in enumerate("ab")}}

# peruser: named processors, and the old form with user and group.
PERUSER = {
    "httpd.conf": HEAD + """MinMultiplexers 3
ExpireTimeout 1800
<Processor customer>
    User #{a_uid}
    Group #{a_uid}
    MaxProcessors 10
    Chroot /srv/jail
</Processor>
Processor #{b_uid} #{b_uid}
<VirtualHost *:{port}>
    ServerName {a_name}
    DocumentRoot {a_root}
    ServerEnvironment customer
    <Directory {a_root}>
        Require all granted
    </Directory>
</VirtualHost>
<VirtualHost *:{port}>
    ServerName {b_name}
    DocumentRoot {b_root}
    ServerEnvironment #{b_uid} #{b_uid}
    <Directory {b_root}>
        Require all granted
    </Directory>
</VirtualHost>
""",
}

PANELS: dict[str, dict[str, str]] = {
    "plain": PLAIN, "hestia": HESTIA, "ispconfig": ISPCONFIG, "virtualmin": VIRTUALMIN, "directadmin": DIRECTADMIN, "cpanel": CPANEL,
    "plesk": PLESK, "froxlor": FROXLOR, "peruser": PERUSER,
}

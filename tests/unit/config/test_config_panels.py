"""Hosts as panels write them, cut down to what this version has, are taken without a word."""

from __future__ import annotations

from typing import Any

import pytest

HESTIA = """
<VirtualHost 10.0.0.1:8080>
    ServerName alice.example
    ServerAlias www.alice.example
    ServerAdmin info@alice.example
    DocumentRoot /home/alice/web/alice.example/public_html
    Alias /vstats/ /home/alice/web/alice.example/stats/
    Alias /error/ /home/alice/web/alice.example/document_errors/
    CustomLog /var/log/apache2/domains/alice.example.bytes bytes
    CustomLog /var/log/apache2/domains/alice.example.log combined
    ErrorLog /var/log/apache2/domains/alice.example.error.log
    IncludeOptional /home/alice/conf/web/alice.example/apache2.forcessl.conf*
    <Directory /home/alice/web/alice.example/stats>
        AllowOverride All
    </Directory>
    <Directory /home/alice/web/alice.example/public_html>
        AllowOverride All
        Options +Includes -Indexes +ExecCGI
    </Directory>
    <IfModule mod_ruid2.c>
        RMode config
        RUidGid alice alice
        RGroups www-data
    </IfModule>
    <IfModule mpm_itk.c>
        AssignUserID alice alice
    </IfModule>
    <IfModule proxy_fcgi_module>
        <FilesMatch \\.php$>
            SetHandler "proxy:unix:/run/php/php8.2-fpm-alice.sock|fcgi://localhost"
        </FilesMatch>
    </IfModule>
    IncludeOptional /home/alice/conf/web/alice.example/apache2.conf_*
</VirtualHost>
LogFormat "%b" bytes
"""

ALTERNC = """
<Virtualhost *:80>
  ServerName alice.example
  DocumentRoot "/var/www/alternc/a/alice/www"
  AssignUserId #1001 #1001
  SetEnv LOGIN "1001-alice"
  <Directory "/var/www/alternc/a/alice/www">
    AllowOverride AuthConfig FileInfo Limit Options Indexes Options=All,MultiViews
    Options +MultiViews -FollowSymLinks +SymLinksIfOwnerMatch
    Order allow,deny
    Allow from all
  </Directory>
</Virtualhost>
"""

IMSCP = """
<VirtualHost *:80 [::1]:80>
    ServerAdmin webmaster@alice.example
    ServerName alice.example
    ServerAlias www.alice.example alice.panel.example
    DocumentRoot /var/www/virtual/alice.example/htdocs
    LogLevel error
    Alias /errors/ /var/www/virtual/alice.example/errors/
    ErrorDocument 401 /errors/401.html
    ErrorDocument 503 /errors/503.html
    <IfModule itk.c>
        AssignUserID alice alice
    </IfModule>
    <Directory /var/www/virtual/alice.example/htdocs>
        Options FollowSymLinks
        AllowOverride AuthConfig Indexes Limit Options=Indexes,MultiViews \\
            Fileinfo=RewriteEngine,RewriteOptions,RewriteBase,RewriteCond,RewriteRule Nonfatal=Override
        Require all granted
    </Directory>
    <IfVersion < 2.4>
        Order allow,deny
        Satisfy any
    </IfVersion>
    <Location /stats>
        <RequireAll>
            Require all granted
            Require not ip 10.9.8.7
        </RequireAll>
    </Location>
</VirtualHost>
"""

CPANEL = """
<VirtualHost 10.0.0.1:80 [2001:db8::1]:80>
  ServerName alice.example
  ServerAlias mail.alice.example www.alice.example
  DocumentRoot /home/alice/public_html
  ServerAdmin webmaster@alice.example
  UseCanonicalName Off
  <IfModule !mod_ruid2.c>
    <IfModule mod_suexec.c>
      SuexecUserGroup alice alice
    </IfModule>
  </IfModule>
  <IfModule mpm_itk.c>
    AssignUserID alice alice
  </IfModule>
  <IfModule mod_userdir.c>
    <IfModule !mpm_itk.c>
      UserDir disabled
    </IfModule>
  </IfModule>
  <IfModule log_config_module>
    <IfModule logio_module>
      CustomLog /etc/apache2/logs/domlogs/alice.example-bytes_log "%{%s}t %I .\\n%{%s}t %O ."
    </IfModule>
  </IfModule>
  <IfModule security2_module>
    SecRuleEngine On
  </IfModule>
  <IfModule include_module>
    <Directory "/home/alice/public_html">
      SSILegacyExprParser On
    </Directory>
  </IfModule>
</VirtualHost>
"""

DEBIAN = """
Define APACHE_LOG_DIR /var/log/apache2
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule mpm_itk_module /usr/lib/apache2/modules/mpm_itk.so
<IfModule mpm_prefork_module>
    StartServers 5
</IfModule>
User ${APACHE_RUN_USER}
Group ${APACHE_RUN_GROUP}
<IfModule ssl_module>
    Listen 443
</IfModule>
<FilesMatch "^\\.ht">
    Require all denied
</FilesMatch>
LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\"" combined
<VirtualHost _default_:80>
    DocumentRoot /var/www/html
    ErrorLog ${APACHE_LOG_DIR}/error.log
    CustomLog ${APACHE_LOG_DIR}/access.log combined
    AssignUserID alice alice
</VirtualHost>
"""


ISPCONFIG = """
<Directory /var/www/alice.example>
    AllowOverride None
    Require all denied
</Directory>
<VirtualHost *:80>
    DocumentRoot /var/www/clients/client1/web1/web
    ServerName alice.example
    AssignUserID alice alice
    <IfModule mod_fcgid.c>
        <Directory /var/www/clients/client1/web1/web>
            <FilesMatch "\\.php[345]?$">
                SetHandler fcgid-script
            </FilesMatch>
            FCGIWrapper /var/www/php-fcgi-scripts/web1/.php-fcgi-starter .php
            FCGIWrapper /var/www/php-fcgi-scripts/web1/.php-fcgi-starter .php3
            Options +ExecCGI
            AllowOverride All
            Require all granted
        </Directory>
    </IfModule>
    <IfModule mod_fastcgi.c>
        FastCgiExternalServer /var/www/php-fcgi/x -idle-timeout 300 -socket /var/lib/php5-fpm/web1.sock
    </IfModule>
    <Directory /var/www/clients/client1/web1/cgi-bin>
        Require all granted
    </Directory>
    ScriptAlias /cgi-bin/ /var/www/clients/client1/web1/cgi-bin/
    <FilesMatch \\.(cgi|pl)$>
        SetHandler cgi-script
    </FilesMatch>
    Action php-fcgi /php-fcgi virtual
    Alias /php-fcgi /var/www/alice.example/cgi-bin/php-fcgi-80-alice.example
</VirtualHost>
"""

CYBERPANEL = """
<VirtualHost *:80>
    ServerName alice.example
    DocumentRoot /home/alice/public_html
    AssignUserID alice alice
    <Proxy "unix:/var/run/php/alice.sock|fcgi://php-fpm-alice">
        ProxySet timeout=120
    </Proxy>
    <FilesMatch \\.php$>
        SetHandler proxy:fcgi://php-fpm-alice
    </FilesMatch>
    AddHandler application/x-httpd-php83 .php .php7 .phtml
    php_admin_value open_basedir "/home/alice/:/tmp"
</VirtualHost>
"""

VIRTUALMIN = """
<VirtualHost *:80>
    ServerName alice.example
    DocumentRoot /home/alice/public_html
    AssignUserID #1001 #1001
    ScriptAlias /cgi-bin/ /home/alice/cgi-bin/
    ProxyPassMatch ^/(.*\\.php(/.*)?)$ fcgi://localhost:8000/home/alice/public_html/$1
    <Directory /home/alice/public_html>
        Options -Indexes +IncludesNOEXEC +SymLinksIfOwnerMatch +ExecCGI
        Require all granted
        AddType application/x-httpd-php .php
        AddHandler fcgid-script .php
        FCGIWrapper /home/alice/fcgi-bin/php8.2.fcgi .php
    </Directory>
    RemoveHandler .php
    ProxyPass /.well-known !
    ProxyPass /admin/ http://localhost:10000/
    ProxyPassReverse /admin/ http://localhost:10000/
</VirtualHost>
"""

DIRECTADMIN = """
<VirtualHost 10.0.0.1:80>
    ServerName alice.example
    DocumentRoot /home/alice/domains/alice.example/public_html
    AssignUserID alice alice
    ScriptAlias /cgi-bin/ /home/alice/domains/alice.example/public_html/cgi-bin/
    <Directory "/home/alice/domains/alice.example/public_html">
        <FilesMatch "\\.(inc|php|phtml)$">
            AddHandler "proxy:unix:/usr/local/php82/sockets/alice.sock|fcgi://localhost" .inc .php .phtml
        </FilesMatch>
    </Directory>
</VirtualHost>
"""


@pytest.mark.parametrize("text", [HESTIA, ALTERNC, IMSCP, CPANEL, DEBIAN, ISPCONFIG, CYBERPANEL, VIRTUALMIN, DIRECTADMIN],
                         ids=["hestia", "alternc", "imscp", "cpanel", "debian", "ispconfig", "cyberpanel", "virtualmin", "directadmin"])
def test_a_panels_host_is_served_as_its_user(world: Any, text: str) -> None:
    """No error, no warning, and alice is alice."""
    result = world.good(text, environ={"APACHE_RUN_USER": "www-data", "APACHE_RUN_GROUP": "www-data"})
    assert result.warnings == []
    assert [(one.name, one.uid, one.host_count) for one in result.compiled.plan.identities] == [("www-data", 33, 0), ("alice", 1001, 1)]

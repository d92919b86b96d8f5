# SPDX-License-Identifier: BSD-2-Clause
"""Web servers, proxies, and php-fpm behind one."""

from compat import Http, Server

NGINX = """
worker_processes 2;
user root;
pid /srv/nginx.pid;
error_log /srv/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path /srv/nginx-body;
    proxy_temp_path /srv/nginx-proxy;
    fastcgi_temp_path /srv/nginx-fastcgi;
    uwsgi_temp_path /srv/nginx-uwsgi;
    scgi_temp_path /srv/nginx-scgi;
    server {{ {server} }}
}}
"""
ANSWER = 'location / {{ default_type text/plain; return 200 "{version}\\n"; }}'


def nginx_release(version):
    answer = ANSWER.format(version=version)
    return {"nginx.conf": NGINX.format(server="listen 127.0.0.1:8080; listen unix:/srv/web.sock; " + answer),
            "tcp.conf": NGINX.format(server="listen 127.0.0.1:8080; " + answer)}


nginx = Server("nginx", ["/usr/sbin/nginx"], Http(1000), nginx_release)


def haproxy_release(version):
    def configuration(bind):
        return f"""
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend web
    bind {bind}
    http-request return status 200 content-type text/plain string "{version}\\n"
"""
    return {"fd.cfg": configuration('"fd@${WEB}"'), "haproxy.cfg": configuration("127.0.0.1:8080")}


haproxy = Server("HAProxy", ["/usr/sbin/haproxy"], Http(1000), haproxy_release)

# With all threads of a process busy it closes kept connections, whoever just sends on them: it has more of them here than clients come.
apache = Server("Apache httpd", ["/usr/sbin/apache2"], Http(500), lambda version: {"index.txt": f"{version}\n", "httpd.conf": f"""
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
ServerRoot /srv/releases/{version}
ServerName test
PidFile /srv/releases/{version}/httpd.pid
ErrorLog /srv/httpd.log
User www-data
Group www-data
ThreadLimit 128
ThreadsPerChild 128
StartServers 1
MaxSpareThreads 384
MaxRequestWorkers 384
Listen 127.0.0.1:8080
DocumentRoot /srv/releases/{version}
DirectoryIndex index.txt
"""})


def lighttpd_release(version):
    text = f"""
server.document-root = "/srv/releases/{version}"
server.bind = "127.0.0.1"
server.port = 8080
server.errorlog = "/srv/lighttpd.log"
index-file.names = ("index.txt")
mimetype.assign = (".txt" => "text/plain")
"""
    return {"index.txt": f"{version}\n", "lighttpd.conf": text,
            "activated.conf": text + 'server.systemd-socket-activation = "enable"\n'}


lighttpd = Server("lighttpd", ["/usr/sbin/lighttpd"], Http(500), lighttpd_release)

# ---- php-fpm, which is upgraded; the nginx in front of it isn't ----

FASTCGI = """listen 127.0.0.1:8081; location / {
    fastcgi_pass %s; fastcgi_param SCRIPT_FILENAME /srv/index.php; fastcgi_param REQUEST_METHOD $request_method;
}"""


def php_make(run):
    run.write("index.php", '<?php $body = getenv("GAPLESS_GENERATION") . "\\n"; header("Content-Length: " . strlen($body)); echo $body;\n')
    upstream = "127.0.0.1:8080" if run.recipe.captured else "unix:/srv/php.sock"
    run.write("front.conf", run.place(NGINX.format(server=FASTCGI % upstream)))
    run.daemon("nginx", "-e", "stderr", "-c", "/srv/front.conf", "-g", "daemon off;")


def php_release(version):
    def configuration(listen):
        return f"""
[global]
error_log = /srv/php.log
daemonize = no
process_control_timeout = 10s
[www]
listen = {listen}
pm = static
pm.max_children = 4
clear_env = no
"""
    return {"fpm.conf": configuration("/srv/php.sock"), "tcp.conf": configuration("127.0.0.1:8080")}


php = Server("php-fpm", ["/usr/sbin/php-fpm8.2", "/usr/sbin/nginx"], Http(300), php_release, php_make, ["tcp:127.0.0.1:8081"])

SERVERS = [nginx, haproxy, apache, lighttpd, php]

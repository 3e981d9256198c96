// Relays TCP connections, with two threads for each and blocking sockets, or with one thread and a selector.
//
//     java Relay.java threads|selector PORT HOST PORT

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;

class Relay {
    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[1]);
        InetSocketAddress to = new InetSocketAddress(args[2], Integer.parseInt(args[3]));
        if (args[0].equals("threads")) {
            byThreads(port, to);
        } else {
            bySelector(port, to);
        }
    }

    static void byThreads(int port, InetSocketAddress to) throws Exception {
        ServerSocket listener = new ServerSocket(port, 128);
        while (true) {
            Socket client = listener.accept();
            Socket server = new Socket(to.getAddress(), to.getPort());
            Thread up = new Thread(() -> oneWay(client, server));
            Thread down = new Thread(() -> oneWay(server, client));
            up.start();
            down.start();
            new Thread(() -> closeAfter(up, down, client, server)).start();
        }
    }

    static void oneWay(Socket from, Socket to) {
        byte[] buffer = new byte[65536];
        try {
            InputStream in = from.getInputStream();
            OutputStream out = to.getOutputStream();
            int n;
            while ((n = in.read(buffer)) > 0) {
                out.write(buffer, 0, n);
            }
            to.shutdownOutput();
        } catch (IOException error) {
            goneOrFatal(error);
        }
    }

    // One that goes away in the middle is no failure of the relay.
    static void goneOrFatal(IOException error) {
        String what = String.valueOf(error.getMessage());
        if (!what.matches(".*(reset|Broken pipe|closed|not connected).*")) {
            error.printStackTrace();
            System.exit(1);
        }
    }

    static void closeAfter(Thread up, Thread down, Socket client, Socket server) {
        try {
            up.join();
            down.join();
            client.close();
            server.close();
        } catch (Exception error) {
            error.printStackTrace();
        }
    }

    static void bySelector(int port, InetSocketAddress to) throws Exception {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress(port), 128);
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (!key.isValid()) {
                    continue;
                }
                if (key.isAcceptable()) {
                    Pair.open(selector, listener.accept(), SocketChannel.open(to));
                } else {
                    ((Pair) key.attachment()).turn();
                }
            }
            selector.selectedKeys().clear();
        }
    }

    // What one side sent and the other has not got yet.
    static class Way {
        final SocketChannel from, to;
        final ByteBuffer waiting = ByteBuffer.allocate(65536);
        boolean ended, finished;

        Way(SocketChannel from, SocketChannel to) {
            this.from = from;
            this.to = to;
        }

        void turn() throws IOException {
            if (!ended && from.read(waiting) < 0) {
                ended = true;
            }
            if (waiting.position() > 0) {
                waiting.flip();
                to.write(waiting);
                waiting.compact();
            }
            if (ended && waiting.position() == 0 && !finished) {
                to.shutdownOutput();
                finished = true;
            }
        }

        int reads() {
            return !ended && waiting.hasRemaining() ? SelectionKey.OP_READ : 0;
        }

        int writes() {
            return waiting.position() > 0 ? SelectionKey.OP_WRITE : 0;
        }
    }

    static class Pair {
        SelectionKey client, server;
        Way up, down;

        static void open(Selector selector, SocketChannel client, SocketChannel server) throws IOException {
            Pair pair = new Pair();
            client.configureBlocking(false);
            server.configureBlocking(false);
            pair.up = new Way(client, server);
            pair.down = new Way(server, client);
            pair.client = client.register(selector, SelectionKey.OP_READ, pair);
            pair.server = server.register(selector, SelectionKey.OP_READ, pair);
        }

        void turn() throws IOException {
            try {
                up.turn();
                down.turn();
            } catch (IOException error) {
                goneOrFatal(error);
                up.finished = down.finished = true;
            }
            if (up.finished && down.finished) {
                client.channel().close();
                server.channel().close();
                return;
            }
            client.interestOps(up.reads() | down.writes());
            server.interestOps(down.reads() | up.writes());
        }
    }
}

package dev.tfcompress.demo

import android.app.Activity.RESULT_OK
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.Color
import android.net.Uri
import android.os.StrictMode
import android.provider.MediaStore
import android.view.View
import android.widget.ImageView
import android.widget.ProgressBar
import android.widget.Spinner
import dev.tfcompress.demo.json.Json
import dev.tfcompress.demo.run.Source
import dev.tfcompress.demo.screen.CompareActivity
import dev.tfcompress.demo.screen.MainActivity
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.File
import java.util.concurrent.CountDownLatch

class MainActivityTest : ScreenTest() {
    @Test
    fun `a model runs on a sample and all its figures are shown`() {
        push()
        val screen = start<MainActivity>().get()
        assertEquals("Fashion: 3 models, 8 samples", screen.text(R.id.summary))
        assertEquals("Sample 1 of 8", screen.text(R.id.caption))
        screen.press(R.id.run)
        val texts = screen.texts()
        assertTrue("$texts", texts.containsAll(listOf("Ankle boot", "Median", "90th percentile", "XNNPACK")))
        assertTrue("$texts", texts.any { it.startsWith("agree: ") } && texts.count { it.endsWith(" ms") } == 4 && texts.count { it.endsWith(" kB") } == 1 && texts.count { it.endsWith("\u00a0%") } == 3)
        screen.look("main", height = 2200)
        workedElsewhere()
    }

    @Test
    @Config(qualifiers = "+night")
    fun `it is dark at night`() {
        push()
        val screen = start<MainActivity>().get()
        screen.choose(R.id.model, 2)
        screen.press(R.id.run)
        val picture = screen.look("night", height = 2200)
        assertTrue(Color.luminance(picture.getPixel(4, 300)) < 0.05)
        assertTrue(screen.texts().any { it.startsWith("agree: ") })
    }

    @Test
    fun `models, threads and samples are picked`() {
        push()
        val screen = start<MainActivity>().get()
        assertEquals(listOf("float32", "int8", "int8, integers in and out (int8)"), (0..2).map { screen.findViewById<Spinner>(R.id.model).adapter.getItem(it) })
        screen.choose(R.id.model, 1)
        screen.choose(R.id.threads, 1)
        screen.press(R.id.previous)
        assertEquals("Sample 8 of 8", screen.text(R.id.caption))
        screen.press(R.id.next)
        screen.press(R.id.next)
        screen.press(R.id.run)
        val (model, settings) = state.outcome!!.choice
        assertEquals(listOf("int8", 2, Source.Sample(1)), listOf(model.name, settings.threads, state.source))
        screen.choose(R.id.model, 0)
        assertNull(state.outcome)
        assertFalse(screen.findViewById<View>(R.id.result).isShown)
    }

    @Test
    fun `rotation keeps what is picked and what was measured`() {
        push()
        val controller = start<MainActivity>()
        controller.get().choose(R.id.model, 1)
        controller.get().press(R.id.run)
        val before = controller.get().texts()
        val bars = bars(controller.get())
        assertTrue("$bars", bars.size == 3 && bars[0] > 500 && bars[2] < 200)
        RuntimeEnvironment.setQualifiers("+land")
        controller.recreate()
        settle()
        val screen = controller.get()
        assertEquals(before, screen.texts())
        assertEquals(bars, bars(screen))
        assertEquals(1, screen.findViewById<Spinner>(R.id.model).selectedItemPosition)
        screen.look("landscape", width = 1782, height = 1500)
        val (left, right) = listOf(R.id.inputs, R.id.outputs).map { screen.findViewById<View>(it) }
        assertTrue(left.right <= right.left && left.width > 600 && right.width > 600)
        controller.pause().stop().destroy()
    }

    @Test
    fun `rotation while a model runs loses nothing`() {
        push()
        val controller = start<MainActivity>()
        controller.get().findViewById<View>(R.id.run).performClick()
        assertNotNull(state.busy)
        assertFalse(controller.get().findViewById<View>(R.id.run).isEnabled)
        controller.recreate()
        settle()
        assertTrue(controller.get().texts().contains("Ankle boot"))
    }

    @Test
    fun `without a bundle the way to one is told`() {
        val screen = start<MainActivity>().get()
        assertTrue(screen.text(R.id.summary).startsWith("No models yet. Write a bundle with Python, tflite_export.export_bundle(models, \"bundle.zip\", …)"))
        assertFalse(screen.findViewById<View>(R.id.content).isShown)
        screen.look("empty")
    }

    @Test
    fun `a broken bundle is told in words`() {
        push(Given.changed(Given.folder(), "\"rows\": 8", "\"rows\": 9"))
        val screen = start<MainActivity>().get()
        assertEquals("This bundle cannot be used: samples/image.bin has 25088 bytes instead of 28224.", screen.text(R.id.error))
        assertTrue(screen.findViewById<View>(R.id.open).isEnabled)
        assertFalse(screen.texts().any { it.startsWith("No models yet") })
        screen.look("broken")
    }

    @Test
    fun `a missing accelerator is told in words`() {
        push()
        val screen = start<MainActivity>().get()
        assertEquals("GPU (not here)", screen.findViewById<Spinner>(R.id.accelerator).adapter.getItem(2))
        screen.choose(R.id.accelerator, 2)
        screen.press(R.id.run)
        assertEquals("This machine has no GPU for the runtime.", screen.text(R.id.error))
        screen.look("missing")
        screen.choose(R.id.accelerator, 0)
        screen.press(R.id.run)
        assertEquals("", screen.text(R.id.error))
        assertNotNull(state.outcome)
    }

    @Test
    fun `a model with an input of an unknown type is told in words`() {
        val folder = Given.folder()
        val manifest = File(folder, "manifest.json")
        manifest.writeText(manifest.readText().replaceFirst("\"type\": \"int8\"", "\"type\": \"string\""))
        push(folder)
        val screen = start<MainActivity>().get()
        screen.choose(R.id.model, 2)
        screen.press(R.id.run)
        assertTrue(screen.text(R.id.error), screen.text(R.id.error).startsWith("'image' of model 'int8, integers in and out' is of type 'string'. This app knows float32"))
        screen.look("unknown")
    }

    @Test
    fun `a photo of the gallery is run`() {
        push()
        val screen = start<MainActivity>().get()
        screen.press(R.id.gallery)
        val asked = shadowOf(screen).nextStartedActivityForResult
        assertEquals(listOf(Intent.ACTION_GET_CONTENT, "image/*"), listOf(asked.intent.action, asked.intent.type))
        val uri = Uri.parse("content://photos/1")
        val photo = ByteArrayOutputStream().also { photo(300, 200).compress(Bitmap.CompressFormat.PNG, 100, it) }.toByteArray()
        shadowOf(screen.contentResolver).registerInputStreamSupplier(uri) { ByteArrayInputStream(photo) }
        shadowOf(screen).receiveResult(asked.intent, RESULT_OK, Intent().setData(uri))
        settle()
        assertEquals("", screen.text(R.id.error))
        assertEquals("From the gallery", screen.text(R.id.caption))
        val seen = state.shown!!.picture!!
        assertEquals(listOf(28, 28), listOf(seen.width, seen.height))
        screen.press(R.id.run)
        assertEquals(3, state.outcome!!.answers.size)
        assertTrue(state.outcome!!.agreement!!.agrees)
        screen.press(R.id.next)
        assertEquals("Sample 1 of 8", screen.text(R.id.caption))
    }

    @Test
    fun `a photo of the camera is run`() {
        push()
        val screen = start<MainActivity>().get()
        screen.press(R.id.camera)
        val asked = shadowOf(screen).nextStartedActivityForResult
        assertEquals(MediaStore.ACTION_IMAGE_CAPTURE, asked.intent.action)
        shadowOf(screen).receiveResult(asked.intent, RESULT_OK, Intent().putExtra("data", photo(120, 160)))
        settle()
        assertEquals("From the camera", screen.text(R.id.caption))
        assertTrue(screen.findViewById<ImageView>(R.id.picture).contentDescription.startsWith("What the model sees"))
        screen.press(R.id.run)
        assertNotNull(state.outcome)
    }

    @Test
    fun `a file that is no picture is told in words`() {
        push()
        val screen = start<MainActivity>().get()
        screen.press(R.id.gallery)
        val asked = shadowOf(screen).nextStartedActivityForResult
        shadowOf(screen.contentResolver).registerInputStreamSupplier(Uri.parse("content://photos/2")) { ByteArrayInputStream(ByteArray(9)) }
        shadowOf(screen).receiveResult(asked.intent, RESULT_OK, Intent().setData(Uri.parse("content://photos/2")))
        settle()
        assertTrue(screen.text(R.id.error), screen.text(R.id.error).startsWith("Reading the picture failed"))
    }

    @Test
    fun `a bundle that was sent as a file is opened and stays`() {
        val screen = start<MainActivity>().get()
        screen.press(R.id.open)
        val asked = shadowOf(screen).nextStartedActivityForResult
        assertEquals(Intent.ACTION_OPEN_DOCUMENT, asked.intent.action)
        val uri = Uri.parse("content://files/1")
        shadowOf(screen.contentResolver).registerInputStreamSupplier(uri) { Given.stream("bundle.zip") }
        shadowOf(screen).receiveResult(asked.intent, RESULT_OK, Intent().setData(uri))
        settle()
        assertEquals("Fashion: 3 models, 8 samples", screen.text(R.id.summary))
        assertTrue(File(app.filesDir, "bundle/manifest.json").isFile)
        shadowOf(screen.contentResolver).registerInputStreamSupplier(uri) { ByteArrayInputStream(ByteArray(3)) }
        screen.press(R.id.open)
        shadowOf(screen).receiveResult(shadowOf(screen).nextStartedActivityForResult.intent, RESULT_OK, Intent().setData(uri))
        settle()
        assertEquals("This bundle cannot be used: the file is no zip archive with a bundle.", screen.text(R.id.error))
        assertEquals("Fashion: 3 models, 8 samples", screen.text(R.id.summary))
    }

    @Test
    fun `results are shared as JSON`() {
        push()
        val screen = start<MainActivity>().get()
        screen.press(R.id.run)
        screen.press(R.id.share)
        val sent = shadowOf(screen).nextStartedActivity.getParcelableExtra(Intent.EXTRA_INTENT, Intent::class.java)!!
        assertEquals(Intent.ACTION_SEND, sent.action)
        val results = Json.parse(sent.getStringExtra(Intent.EXTRA_TEXT)!!) as Map<*, *>
        val entry = (results["entries"] as List<*>).single() as Map<*, *>
        assertEquals(listOf("Fashion", true, "float32", "ok", "xnnpack", 50L), listOf(results["run"], results["finished"], entry["name"], entry["status"], entry["accelerator"], entry["runs"]))
        assertEquals(listOf("expected", 80L), (entry["agreement"] as Map<*, *>).let { listOf(it["against"], it["values"]) })
    }

    @Test
    fun `the other screen is one press away`() {
        push()
        val screen = start<MainActivity>().get()
        screen.press(R.id.compare)
        assertEquals(CompareActivity::class.java.name, shadowOf(screen).nextStartedActivity.component!!.className)
    }

    @Test
    fun `a cold start works on another thread than the screen's`() {
        push()
        val policy = StrictMode.getThreadPolicy().toString()
        assertEquals(StrictMode.ThreadPolicy.Builder().detectAll().penaltyLog().build().toString(), policy)
        val gate = CountDownLatch(1)
        app.work.execute { gate.await() }
        val screen = Robolectric.buildActivity(MainActivity::class.java).setup().get()
        // The screen is there before the work is begun, and nothing has been read on its thread.
        assertTrue(screen.findViewById<View>(R.id.busy).isShown)
        assertFalse(state.ready)
        assertNotNull(state.busy)
        gate.countDown()
        settle()
        assertTrue(state.ready)
        workedElsewhere()
    }

    private fun bars(screen: MainActivity): List<Int> = all(screen.findViewById(R.id.answers)).filterIsInstance<ProgressBar>().map { it.progress }

    private fun photo(width: Int, height: Int): Bitmap = Bitmap.createBitmap(width, height, Bitmap.Config.ARGB_8888).apply {
        for (x in 0 until width) for (y in 0 until height) setPixel(x, y, Color.rgb(255 * x / width, 255 * y / height, 90))
    }
}

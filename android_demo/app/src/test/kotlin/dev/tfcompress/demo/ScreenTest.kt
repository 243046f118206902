package dev.tfcompress.demo

import android.app.Activity
import android.content.pm.ApplicationInfo
import android.graphics.Bitmap
import android.graphics.Canvas
import android.view.View
import android.view.View.MeasureSpec.EXACTLY
import android.view.View.MeasureSpec.makeMeasureSpec
import android.view.ViewGroup
import android.widget.Button
import android.widget.ImageView
import android.widget.Spinner
import android.widget.TextView
import dev.tfcompress.demo.runtime.Engine
import dev.tfcompress.demo.screen.State
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import java.io.File
import java.util.concurrent.TimeUnit

/** The app with the runtime for Linux in the place of the phone's. */
class TestDemo : Demo() {
    val linux = LinuxEngine()

    override fun newEngine(): Engine = linux

    override fun onCreate() {
        applicationInfo.flags = applicationInfo.flags or ApplicationInfo.FLAG_DEBUGGABLE
        super.onCreate()
    }
}

/** What tests of screens have in common. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34], application = TestDemo::class, qualifiers = "w411dp-h891dp-xhdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
abstract class ScreenTest {
    protected val app get() = RuntimeEnvironment.getApplication() as TestDemo
    protected val state: State get() = app.desk.state

    /** Puts a bundle where adb would push it. */
    protected fun push(folder: File = Given.folder()): File = File(app.getExternalFilesDir(null), "bundle").also { folder.copyRecursively(it) }

    protected inline fun <reified T : Activity> start(): ActivityController<T> = Robolectric.buildActivity(T::class.java).setup().also { settle() }

    /** Waits until the work is done and shown. */
    fun settle() {
        val until = System.nanoTime() + 30_000_000_000
        do {
            app.work.submit {}.get(30, TimeUnit.SECONDS)
            shadowOf(android.os.Looper.getMainLooper()).idle()
            check(System.nanoTime() < until) { "still busy: ${state.busy}" }
        } while (state.busy != null && Thread.sleep(5) == Unit)
    }

    protected fun Activity.press(id: Int) {
        val button = findViewById<Button>(id)
        assertTrue("${button.text} can be pressed", button.isEnabled && button.isShown)
        button.performClick()
        settle()
    }

    protected fun Activity.choose(id: Int, position: Int) {
        findViewById<Spinner>(id).setSelection(position)
        settle()
    }

    protected fun Activity.text(id: Int): String = findViewById<TextView>(id).text.toString()

    /** All texts that are seen, top to bottom. */
    protected fun Activity.texts(): List<String> = all(window.decorView).filterIsInstance<TextView>().filter { it.isShown }.map { it.text.toString() }

    protected fun all(view: View): List<View> = listOf(view) + if (view is ViewGroup) (0 until view.childCount).flatMap { all(view.getChildAt(it)) } else emptyList()

    /** Draws the screen, checks it, and keeps the picture. */
    protected fun Activity.look(name: String, width: Int = 822, height: Int = 1782): Bitmap {
        val screen = window.decorView
        screen.measure(makeMeasureSpec(width, EXACTLY), makeMeasureSpec(height, EXACTLY))
        screen.layout(0, 0, width, height)
        val picture = Bitmap.createBitmap(width, height, Bitmap.Config.ARGB_8888)
        screen.draw(Canvas(picture))
        val folder = File(System.getProperty("screens") ?: "build/screens").also { it.mkdirs() }
        File(folder, "$name.png").outputStream().use { picture.compress(Bitmap.CompressFormat.PNG, 100, it) }
        val colours = IntArray(width * height).also { picture.getPixels(it, 0, width, 0, 0, width, height) }.toSet()
        assertTrue("$name shows something", colours.size > 20)
        accessible(screen)
        return picture
    }

    /** What can be pressed or seen tells a screen reader what it is, and is large enough for a finger. */
    private fun accessible(screen: View) {
        for (view in all(screen).filter { it.isShown && (it is Button || it is Spinner || it is ImageView && it.drawable != null) }) {
            val text = (view as? TextView)?.text?.toString().orEmpty()
            assertTrue("${view.id.let(view.resources::getResourceEntryName)} is named", text.any { it.isLetter() } || !view.contentDescription.isNullOrBlank())
            if (view !is ImageView) assertTrue("$text is ${view.height} high", view.height >= 48 * view.resources.displayMetrics.density - 1)
        }
    }

    /** The runtime was called on the working thread alone. */
    protected fun workedElsewhere() = assertEquals(setOf("work"), app.linux.threads)
}
